"""Reading jobs: one with all that is known of it, or many by state, page by page."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from math import isfinite
from typing import Any

from emp_core.errors import JobNotFound, QueueError
from emp_core.jobs.codec import decode_job
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.log.logger import get_logger
from emp_core.queue.calls import Calls
from emp_core.queue.sending import packed

__all__ = ["JobReader", "read_us"]

log = get_logger("emp.queue")

_PAGE = 100
_SMALL = "return redis.call('STRLEN', KEYS[1]) <= 16384 and redis.call('GET', KEYS[1]) or nil"
"""For a connection that is subscribed: Redis closes one to which more is sent than it takes at once. Short, because it is sent as
it is: a script that Redis had forgotten would be refused there."""


class JobReader:
    """Reads jobs as they are now.

    Args:
        max_attempts: what holds for a job that does not say its own number.
    """

    def __init__(self, calls: Calls, *, max_attempts: int) -> None:
        self._calls = calls
        self._keys = calls.keys
        self._max_attempts = max_attempts

    async def get(self, job_id: str, *, payload: bool = True) -> Job:
        """What `JobQueue.get` does."""
        if not payload:
            return self.decoded(job_id, await self.fields(job_id))
        return self.decoded(job_id, *await self.read(job_id))

    def questions(self, job_id: str) -> tuple[bytes, bytes]:
        """The commands, packed, for a job's hash and for its payload, which is None where it is large."""
        return packed("HGETALL", self._keys.job(job_id)), packed("EVAL", _SMALL, 1, self._keys.payload(job_id))

    async def read(self, job_id: str) -> tuple[Mapping[str, str], str | None]:
        """A job's hash, empty where there is no such job, and its payload."""
        commands = packed("HGETALL", self._keys.job(job_id)), packed("GET", self._keys.payload(job_id))
        flat, payload = await self._calls.repeated(lambda: self._calls.client.calls(commands))
        return _paired(flat), payload

    async def fields(self, job_id: str) -> Mapping[str, str]:
        """A job's hash; empty: there is no such job."""
        command = packed("HGETALL", self._keys.job(job_id))
        [flat] = await self._calls.repeated(lambda: self._calls.client.calls([command]))
        return _paired(flat)

    def decoded(self, job_id: str, fields: Mapping[str, str], payload: str | None = None) -> Job:
        """A job from its hash.

        Raises:
            JobNotFound: it is empty.
            QueueError: its state is none that is known here.
        """
        if "status" not in fields:
            raise JobNotFound(
                f"there is no job {job_id}", hint="it never was, or it was kept for as long as it should be"
            )
        return decode_job(job_id, fields, payload, max_attempts=self._max_attempts)

    async def listed(self, state: JobState, service: str | None) -> AsyncGenerator[Job, None]:
        """The jobs in a state, the newest first, without their payloads.

        Args:
            service: only those that require it.
        """
        start, full = 0, True
        while full:
            ids = await self._ids(state, start)
            for job_id, fields in zip(ids, await self._hashes(ids), strict=True):
                # One that was deleted may still stand in the index.
                if "status" in fields and service in (None, fields.get("service_required")):
                    try:
                        job = decode_job(job_id, fields, max_attempts=self._max_attempts)
                    except QueueError as error:
                        log.warning("a job cannot be understood: it is left out", job=job_id, error=str(error))
                    else:
                        yield job
            start, full = start + _PAGE, len(ids) == _PAGE

    async def _ids(self, state: JobState, start: int) -> list[str]:
        found: list[str] = await self._calls.repeated(
            lambda: self._calls.client.zrevrange(self._keys.index(state), start, start + _PAGE - 1)
        )
        return found

    async def _hashes(self, ids: Sequence[str]) -> list[dict[str, str]]:
        async def read() -> Any:
            async with self._calls.client.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(self._keys.job(job_id))
                return await pipe.execute()

        found: list[dict[str, str]] = await self._calls.repeated(read) if ids else []
        return found

    async def counts(self) -> dict[JobState, int]:
        """What `JobQueue.counts` does."""

        async def read() -> Any:
            async with self._calls.client.pipeline(transaction=False) as pipe:
                for state in JobState:
                    pipe.zcard(self._keys.index(state))
                return await pipe.execute()

        return dict(zip(JobState, await self._calls.repeated(read), strict=True))


def _paired(flat: Sequence[str]) -> Mapping[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def read_us(text: str | None) -> float | None:
    """A time as it stands in a job's hash, in µs since 1970; None where there is none, or none that can be read."""
    try:
        time_us = float(text or "")
    except ValueError:
        return None
    return time_us if isfinite(time_us) else None
