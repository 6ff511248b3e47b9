"""`emp up`: one machine, no set-up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import click
from attrs import frozen

from emp_core.cli.hub import prepared
from emp_core.cli.output import emit, json_option, path_of
from emp_core.cli.serving import described, serve, worker_lines, workers_from
from emp_core.cli.shutdown import Shutdown
from emp_core.config import Settings
from emp_core.queue.addresses import shown_url
from emp_core.queue.embedded import embedded_redis
from emp_core.worker.worker import Worker

__all__ = ["Hub", "hub_of", "up"]


@click.command()
@click.argument("types", nargs=-1, metavar="[WORKERS]...")
@click.option("--show-password", is_flag=True, help="Print Redis's address with its password.")
@json_option
def up(types: tuple[str, ...], show_password: bool, as_json: bool) -> int:
    """Run everything on this machine: Redis and the workers for WORKERS.

    Redis is the one that HUB_REDIS_URL names, or else an embedded one in the data folder, on 127.0.0.1 only; it ends with
    the last `emp up` or `emp worker` that uses it, and its data stay. Commands in other terminals of the same user find it
    by themselves.

    Ctrl-C or SIGTERM drains: jobs that run may end (EMP_GRACE_S), the rest goes back to the queue. A second one stops
    them at once. With --json, one document tells when all is ready.

    \b
    Examples:
      WORKERS=echo emp up
      emp up echo:2 comfyui
      HUB_REDIS_URL=redis://hub:6379 WORKERS=comfyui emp up
    """
    settings = prepared()
    shutdown = Shutdown(settings.grace_s)

    async def body() -> None:
        workers = workers_from(",".join(types) or None)  # first: nothing is started for a typing mistake
        async with hub_of(settings) as hub:

            def ready() -> None:
                _say_ready(hub, workers, settings, show_password=show_password, as_json=as_json)

            await serve(workers, ready, on_start=shutdown.look_after)

    return anyio.run(shutdown.run, body)


@frozen
class Hub:
    """The Redis that is used, and whether it is an embedded one."""

    url: str
    embedded_in: str | None = None


@asynccontextmanager
async def hub_of(settings: Settings) -> AsyncIterator[Hub]:
    """The Redis that HUB_REDIS_URL names, else the embedded one, which is started unless it runs."""
    if settings.redis_url is not None:
        yield Hub(settings.redis_url)
        return
    async with embedded_redis(settings.data_dir) as server:
        yield Hub(server.url, str(server.folder))


def _say_ready(hub: Hub, workers: list[Worker], settings: Settings, *, show_password: bool, as_json: bool) -> None:
    url = hub.url if show_password else shown_url(hub.url)
    redis: dict[str, Any] = {"url": url, "embedded": hub.embedded_in is not None}
    where = url
    if hub.embedded_in is not None:
        redis["folder"] = hub.embedded_in
        where += f" (embedded, in {hub.embedded_in}; other terminals find it by themselves)"
    lines = [
        f"Redis      {where}",
        f"Artifacts  {path_of(_shown_store(settings))}",
        *worker_lines(workers),
        "Ready. Ctrl-C ends it.",
    ]
    emit({"redis": redis, "workers": described(workers)}, "\n".join(lines), as_json=as_json)


def _shown_store(settings: Settings) -> str:
    return shown_url(settings.store_url) if "://" in settings.store_url else settings.store_url
