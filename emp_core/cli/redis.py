"""`emp redis`: the embedded Redis of this user."""

from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import emit, json_option, warn
from emp_core.config import Settings
from emp_core.errors import QueueUnavailable
from emp_core.queue.addresses import shown_url
from emp_core.queue.embedded import EmbeddedRedis, running, stop

__all__ = ["redis"]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def redis(context: click.Context, as_json: bool) -> int:
    """Show and stop the embedded Redis, which `emp up` starts where HUB_REDIS_URL is not set.

    \b
    Examples:
      emp redis
      redis-cli -u "$(emp redis url)" ZCARD jobs:pending
      emp redis stop
    """
    if context.invoked_subcommand is None:
        return _status(as_json)
    return DONE


@redis.command("status")
@json_option
def status(as_json: bool) -> int:
    """Show whether it runs: port, process, folder, and how to look into it.

    \b
    Examples:
      emp redis status --json
    """
    return _status(as_json)


@redis.command("url")
@json_option
def url(as_json: bool) -> int:
    """Print the address that commands here would use, password included.

    \b
    Examples:
      redis-cli -u "$(emp redis url)"
    """
    settings = prepared()
    if settings.redis_url is not None:
        found = settings.redis_url
    else:
        server = run_async(running, settings.data_dir)
        if server is None:
            raise QueueUnavailable(
                f"no embedded Redis runs in {settings.data_dir}, and HUB_REDIS_URL is not set",
                hint="`emp up` starts one",
            )
        found = server.url
    emit({"url": found}, found, as_json=as_json)
    return DONE


@redis.command("stop")
@json_option
def stop_(as_json: bool) -> int:
    """Stop it, whoever uses it. Its data stay.

    \b
    Examples:
      emp redis stop
    """
    settings = prepared()
    stopped = run_async(stop, settings.data_dir)
    text = "Stopped." if stopped else f"No embedded Redis runs in {settings.data_dir}."
    emit({"stopped": stopped}, text, as_json=as_json)
    return DONE


def _status(as_json: bool) -> int:
    settings = prepared()
    server = run_async(running, settings.data_dir)
    emit(_shown(settings, server), lambda: _text(settings, server), as_json=as_json)
    if settings.redis_url is not None and not as_json:
        warn(f"commands here use {shown_url(settings.redis_url)} (HUB_REDIS_URL) and not the embedded one")
    return DONE


def _shown(settings: Settings, server: EmbeddedRedis | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"running": server is not None, "data_dir": settings.data_dir}
    if settings.redis_url is not None:
        shown["hub_redis_url"] = shown_url(settings.redis_url)
    if server is not None:
        shown |= {
            "url": shown_url(server.url),
            "port": server.port,
            "pid": server.pid,
            "folder": server.folder,
            "binary": server.binary,
            "since": server.since,
            "stays": server.stays,
            "log": server.log,
        }
    return shown


def _text(settings: Settings, server: EmbeddedRedis | None) -> str:
    if server is None:
        return f"No embedded Redis runs in {settings.data_dir}. `emp up` starts one."
    return "\n".join(
        (
            f"Running    {shown_url(server.url)}, since {server.since.astimezone():%Y-%m-%d %H:%M:%S}",
            f"Process    {server.pid} ({server.binary})",
            f"Folder     {server.folder}",
            f"Log        {server.log}",
            f"Ends       {'when it is stopped' if server.stays else 'with the last `emp up` or `emp worker` that uses it'}",
            'Look in    redis-cli -u "$(emp redis url)"',
        )
    )
