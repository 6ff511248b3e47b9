"""Reaching the queue: from the settings to an open `JobQueue`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from attrs import evolve

from emp_core.cli.output import note
from emp_core.config import Settings, environment
from emp_core.errors import QueueUnavailable
from emp_core.queue.embedded import running
from emp_core.queue.queue import JobQueue
from emp_core.telemetry.logs import configure_logs

__all__ = ["find_hub", "open_queue", "prepared"]

_LOOK_WAIT_S = 3.0
"""How long commands that only look wait: who looks wants to know now."""
_POLL_S = 0.1


def prepared(*, quiet: tuple[str, ...] = (), level: str | None = None) -> Settings:
    """The settings of this process, with its logs set up by them.

    Args:
        quiet: loggers whose warnings the command says itself.
        level: the level of logs where EMP_LOG_LEVEL does not set one.
    """
    settings = Settings.from_env()
    said = bool(environment().get("EMP_LOG_LEVEL", "").strip())
    configure_logs(settings.log_level if said or level is None else level, settings.log_format, quiet=quiet)
    return settings


async def find_hub(settings: Settings, *, limit_s: float) -> str:
    """Where Redis is: HUB_REDIS_URL, else the embedded one of this machine, as soon as it runs.

    Raises:
        QueueUnavailable: there was none within ``limit_s``.
    """
    if settings.redis_url is not None:
        return settings.redis_url
    told = False
    with anyio.move_on_after(limit_s):
        while True:
            if (found := await running(settings.data_dir)) is not None:
                return found.url
            if not told:
                told = True
                note(
                    f"waiting for Redis: HUB_REDIS_URL is not set, and no embedded one runs in {settings.data_dir} "
                    f"(`emp up` starts it); giving up after {limit_s:g} s"
                )
            # Another process starts it, and tells nobody but by the state of its folder.
            await anyio.sleep(_POLL_S)
    raise QueueUnavailable(
        f"no Redis within {limit_s:g} s: HUB_REDIS_URL is not set, and no embedded one runs in {settings.data_dir}",
        hint="set HUB_REDIS_URL, or start everything on this machine with `emp up`",
    )


@asynccontextmanager
async def open_queue(settings: Settings, *, only_look: bool = False) -> AsyncIterator[JobQueue]:
    """The queue. Waits for Redis as long as EMP_REDIS_WAIT_S says, or briefly where a command ``only_look``s.

    Raises:
        QueueUnavailable: Redis was not there in time.
    """
    limit_s = min(_LOOK_WAIT_S, settings.redis_wait_s) if only_look else settings.redis_wait_s
    url = await find_hub(settings, limit_s=limit_s)
    async with JobQueue.connect(url, settings=evolve(settings, redis_wait_s=limit_s)) as queue:
        yield queue
