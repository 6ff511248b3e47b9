"""Whether the queue gets on, judged by its jobs: what waits longest, what runs longest, what is overdue.

A Redis that answers proves little: workers that all wait on dead connections look well by every ping.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import asdict, frozen

from emp_core.errors import JobNotFound
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls
from emp_core.queue.explain import Explanation
from emp_core.queue.reading import read_us

__all__ = ["Age", "QueueHealth", "read_health"]

_NEXT_MOST = 100
_ACTIVE_MOST = 5000
_OVERDUE_S = 10.0
"""The keeper looks every two seconds at least, and another one takes over within six."""
_WAITS_LONG_S = 30.0
"""A job that waits for less may just be left to a warmer worker, or wait for the next look of one that was not woken."""


@frozen
class Age:
    """For how long a job has been in its state, in seconds."""

    job_id: str
    seconds: float


@frozen
class QueueHealth:
    """How the queue gets on.

    Attributes:
        waiting, running: how many jobs.
        workers: how many are alive.
        oldest_waiting: which of the 100 jobs that are next could have been claimed for longest; None when none waits.
        oldest_running: the job whose attempt began first; None when none runs.
        problems: what does not move though it should, each in words for a person.
    """

    waiting: int
    running: int
    workers: int
    oldest_waiting: Age | None
    oldest_running: Age | None
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        return asdict(self)


@frozen
class _Seen:
    now_us: float
    waiting: int
    running: int
    next_ids: list[str]
    active_ids: list[str]
    lease_us: float | None
    due_us: float | None


async def read_health(
    calls: Calls, workers: int, explain: Callable[[str], Awaitable[Explanation]], *, lease_s: float
) -> QueueHealth:
    """Look at the queue.

    Args:
        workers: how many are alive.
        explain: why a job waits.
    """
    seen = await _look(calls)
    waiting = await _oldest(calls, seen.now_us, seen.next_ids, "pending_at", "created_at")
    running = await _oldest(calls, seen.now_us, seen.active_ids, "started_at")
    problems = _overdue(seen, lease_s)
    if waiting is not None and waiting.seconds > _WAITS_LONG_S:
        with suppress(JobNotFound):  # somebody deleted it meanwhile
            problems += _stuck(waiting, await explain(waiting.job_id))
    return QueueHealth(seen.waiting, seen.running, workers, waiting, running, tuple(problems))


async def _look(calls: Calls) -> _Seen:
    keys = calls.keys

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zcard(keys.index("pending"))
            pipe.zcard(keys.index("active"))
            pipe.zrange(keys.index("pending"), 0, _NEXT_MOST - 1)
            pipe.zrange(keys.index("active"), 0, _ACTIVE_MOST - 1)
            pipe.zrange(keys.index("active"), 0, 0, withscores=True)
            pipe.zrange(keys.index("scheduled"), 0, 0, withscores=True)
            return await pipe.execute()

    (seconds, micros), waiting, running, next_ids, active_ids, lease, due = await calls.repeated(read)
    now_us = seconds * 1e6 + micros
    first_lease, first_due = (found[0][1] if found else None for found in (lease, due))
    return _Seen(now_us, waiting, running, next_ids, active_ids, first_lease, first_due)


async def _oldest(calls: Calls, now_us: float, ids: Sequence[str], *since: str) -> Age | None:
    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(calls.keys.job(job_id), *since)
            return await pipe.execute()

    times = await calls.repeated(read) if ids else []
    began = {
        job_id: first_us
        for job_id, told in zip(ids, times, strict=True)
        if (first_us := read_us(next(filter(None, told), None)))
    }
    if not began:
        return None
    job_id = min(began, key=began.__getitem__)
    return Age(job_id, round(max(0.0, now_us - began[job_id]) / 1e6, 1))


def _overdue(seen: _Seen, lease_s: float) -> list[str]:
    problems = []
    for what, due_us in (("a lease ended", seen.lease_us), ("a job was due", seen.due_us)):
        late_s = 0.0 if due_us is None else (seen.now_us - due_us) / 1e6
        if late_s > lease_s + _OVERDUE_S:
            problems.append(f"{what} {late_s:.0f} s ago and nothing came of it: no worker keeps house")
    return problems


def _stuck(waiting: Age, why: Explanation) -> list[str]:
    """A long wait is no problem where every slot is busy, or the customer is at its cap."""
    if why.status is not JobState.PENDING:
        return []
    if any(one.can_run for one in why.workers) and why.estimate_s != 0:
        return []
    return [f"job {waiting.job_id} has waited for {waiting.seconds:.0f} s: {why.summary}"]
