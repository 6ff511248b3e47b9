"""Listing jobs by state, page by page."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from emp_core.jobs.codec import decode_job
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls

__all__ = ["listed"]

_PAGE = 100


async def listed(calls: Calls, state: JobState, service: str | None, *, max_attempts: int) -> AsyncGenerator[Job, None]:
    """The jobs in a state, the newest first, without their payloads.

    Args:
        service: only those that require it.
        max_attempts: what holds for a job that does not say its own number.
    """
    start, full = 0, True
    while full:
        ids = await _ids(calls, state, start)
        for job_id, fields in zip(ids, await _hashes(calls, ids), strict=True):
            # One that was deleted may still stand in the index.
            if "status" in fields and service in (None, fields["service_required"]):
                yield decode_job(job_id, fields, max_attempts=max_attempts)
        start, full = start + _PAGE, len(ids) == _PAGE


async def _ids(calls: Calls, state: JobState, start: int) -> list[str]:
    found: list[str] = await calls.repeated(
        lambda: calls.client.zrevrange(calls.keys.index(state), start, start + _PAGE - 1)
    )
    return found


async def _hashes(calls: Calls, ids: Sequence[str]) -> list[dict[str, str]]:
    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(calls.keys.job(job_id))
            return await pipe.execute()

    found: list[dict[str, str]] = await calls.repeated(read) if ids else []
    return found
