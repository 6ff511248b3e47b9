"""`emp doctor`: checks the installation, and says what to do."""

import sys
from collections.abc import AsyncIterator, Callable

import click

from emp_core.cli import checks
from emp_core.cli.checks import Check, State
from emp_core.cli.checks_queue import check_queue
from emp_core.cli.checks_services import check_services
from emp_core.cli.failures import DONE, UNREACHED, USAGE
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, emit_failure, json_option
from emp_core.config import Settings, environment
from emp_core.errors import ConfigError
from emp_core.plugins.manager import load_plugins
from emp_core.telemetry.logs import configure_logs

__all__ = ["doctor", "tell_checks"]

_COLOURS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check settings, plugins, the service mapping, Redis, the queue, services, artifacts, disk and GPUs.

    Nothing is started. A warning stands for what may be as it should, a failure for what keeps a command from
    working: exit 0 without failures, 3 when all that failed is that something could not be reached, 2 otherwise.

    \b
    Examples:
      emp doctor
      WORKERS=comfyui COMFYUI_HOST=gpu1 emp doctor
      emp doctor --json | jq '.data[] | select(.state != "ok")'
    """
    return tell_checks(_checks, as_json=as_json)


def tell_checks(checks: Callable[[], AsyncIterator[Check]], *, as_json: bool) -> int:
    """Make checks and tell what they find; gives the exit code."""
    found: list[Check] = []

    async def run() -> None:
        async for check in checks():
            found.append(check)
            if not as_json:
                emit(None, _line(check), as_json=False)

    run_async(run)
    failed = [check for check in found if check.state is State.FAIL]
    if as_json:
        _emit_json(found, failed)
    if not failed:
        return DONE
    return UNREACHED if all(check.unreached for check in failed) else USAGE


async def _checks() -> AsyncIterator[Check]:
    yield checks.check_versions()
    environ = environment()
    try:
        settings = Settings.from_env(environ)
    except ConfigError as error:
        yield checks.failed("settings", error)
        return
    # What the parts would warn of stands in the checks.
    configure_logs("debug" if settings.log_level == "debug" else "error", settings.log_format)
    yield Check("settings", State.OK, "every variable that is set can be used")
    plugins = load_plugins()
    for check in checks.check_plugins(plugins):
        yield check
    yield (redis := await checks.check_redis(settings))
    if redis.state is not State.FAIL and (queue := await check_queue(settings)) is not None:
        yield queue
    async for check in check_services(settings, plugins, environ):
        yield check
    async for check in checks.check_stores(settings, plugins, environ):
        yield check
    yield checks.check_disk(settings)
    yield checks.check_gpus(settings)


def _line(check: Check) -> str:
    paint: Callable[[str], str] = (
        (lambda text: click.style(text, fg=_COLOURS[check.state])) if sys.stdout.isatty() else str
    )
    lines = [f"{paint(f'{check.state.value:<4}')}  {check.name}: {clean(check.message)}"]
    lines += (f"        - {clean(problem)}" for problem in check.problems)
    if check.hint:
        lines.append(f"        {clean(check.hint)}")
    return "\n".join(lines)


def _emit_json(found: list[Check], failed: list[Check]) -> None:
    data = [check.as_dict() for check in found]
    if not failed:
        emit(data, "", as_json=True)
        return
    names = ", ".join(check.name for check in failed)
    emit_failure({"code": "unhealthy", "message": f"{len(failed)} of {len(found)} checks failed: {names}"}, data)
