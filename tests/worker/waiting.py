"""Waiting for what a test can be told of."""

from collections.abc import Awaitable, Callable

import anyio

from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue

LIMIT_S = 20.0


async def until_event(queue: JobQueue, job_id: str, *names: str) -> JobEvent:
    """The job's first event of one of these names, once it has happened."""
    with anyio.fail_after(LIMIT_S):
        async for event in queue.events(job_id):
            if event.name in names:
                return event
    raise AssertionError(f"{job_id} ended without any of {names}: {[e.name for e in await queue.history(job_id)]}")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something in Redis that nothing tells of."""
    with anyio.fail_after(LIMIT_S):
        while not await holds():  # noqa: ASYNC110 - there is nobody to set an event
            await anyio.sleep(0.005)


async def names_of_events(queue: JobQueue, job_id: str) -> list[str]:
    """What happened to a job; whether somebody served it when it was submitted is left out."""
    return [event.name for event in await queue.history(job_id) if event.name != "unserved"]
