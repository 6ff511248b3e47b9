"""Why a job is where it is: its position, what it waits for, and what each live worker says to it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import frozen

from emp_core.jobs.codec import from_us, to_us
from emp_core.jobs.matching import Match, match_job
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls
from emp_core.queue.estimate import Readiness, left_to_a_warmer_one_s, mean_run_s, place_of
from emp_core.queue.workers import WorkerView

__all__ = ["Explanation", "WorkerVerdict", "explain"]

_ACTIVE_MOST = 5000


@frozen
class WorkerVerdict:
    """What one live worker says to a job.

    Attributes:
        can_run: whether it would run it; if not, ``reasons`` says why, each in words.
        penalty_ms: expected time to get ready for it.
        busy, slots: of the service that would run it.
    """

    worker_id: str
    can_run: bool
    reasons: tuple[str, ...] = ()
    penalty_ms: float = 0.0
    busy: int = 0
    slots: int = 0


@frozen
class Explanation:
    """Why a job is where it is.

    Attributes:
        summary: the reason, in one sentence.
        position: its place in the order in which those that can run it will take what waits for them now, by turns; None
            unless it waits. Where ``position_is_least``, that place or a later one: so many lines wait that not all were
            looked at.
        estimate_s: about how long until it begins; None where nothing can be said. ``basis`` says what it comes from, or why
            there is none.
    """

    job_id: str
    status: JobState
    summary: str
    position: int | None = None
    position_is_least: bool = False
    estimate_s: float | None = None
    basis: str | None = None
    workers: tuple[WorkerVerdict, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        workers = [
            {
                "worker_id": one.worker_id,
                "can_run": one.can_run,
                "reasons": list(one.reasons),
                "penalty_ms": one.penalty_ms,
                "busy": one.busy,
                "slots": one.slots,
            }
            for one in self.workers
        ]
        shown = {"job_id": self.job_id, "status": self.status.value, "summary": self.summary, "position": self.position}
        reckoned = {"position_is_least": self.position_is_least, "estimate_s": self.estimate_s, "basis": self.basis}
        return {**shown, **reckoned, "workers": workers}


async def explain(calls: Calls, job: Job, workers: Sequence[WorkerView]) -> Explanation:
    """Explain where ``job`` is, given the live workers."""
    match job.status:
        case JobState.PENDING:
            return await _explain_pending(calls, job, workers)
        case JobState.SCHEDULED:
            return Explanation(job.id, job.status, await _why_scheduled(calls, job))
        case JobState.ACTIVE:
            since = f" since {job.started_at:%H:%M:%S} UTC" if job.started_at else ""
            asked = "; it was asked to stop" if job.cancel_requested else ""
            return Explanation(
                job.id,
                job.status,
                f"it runs on {job.worker_id}{since}, attempt {job.attempt}, {job.progress:.0f} % done{asked}",
            )
    why = f": {job.error.message}" if job.error is not None and job.status is JobState.FAILED else ""
    return Explanation(job.id, job.status, f"it is {job.status.value}{why}")


async def _why_scheduled(calls: Calls, job: Job) -> str:
    due_us = await calls.repeated(lambda: calls.client.zscore(calls.keys.index("scheduled"), job.id))
    # As a score, a time that is far away is not exact: the last one would be past all that can be told.
    due = from_us(min(due_us, to_us(datetime.max.replace(tzinfo=UTC)))) if due_us else None
    when = f"{due:%Y-%m-%d %H:%M:%S} UTC" if due else "a moment from now"
    if job.attempt and job.error is not None:
        return f"attempt {job.attempt} failed ({job.error.code}: {job.error.message}); the next one may begin at {when}"
    return f"it was submitted to begin at {when}"


async def _explain_pending(calls: Calls, job: Job, workers: Sequence[WorkerView]) -> Explanation:
    busy = await _busy_slots(calls)
    verdicts = tuple(_verdict(job, worker, busy) for worker in workers)
    able = [one for one in verdicts if one.can_run]
    slots = sum(one.slots for one in able)
    recent = await mean_run_s(calls, job.service_required) if able else None
    names = {one.worker_id for one in able}
    pace_s = recent[0] / max(1, slots) if recent else 0.0
    place = await place_of(calls, job, [worker for worker in workers if worker.id in names], pace_s=pace_s)
    position, is_least = (place.number, place.is_least) if place else (None, False)
    explained = partial(
        Explanation, job.id, job.status, position=position, position_is_least=is_least, workers=verdicts
    )
    if not able:
        return explained(f"no live worker can run it: {'; '.join(_refusals(verdicts)) or 'no worker is alive'}")
    if (capped := await _at_cap(calls, job)) is not None:
        return explained(capped)
    ready = [Readiness(one.worker_id, round(one.penalty_ms), one.busy < one.slots) for one in able]
    left_s = await left_to_a_warmer_one_s(calls, job, ready)
    if left_s is not None:
        soonest = min(able, key=lambda one: one.penalty_ms)
        summary = f"it is left for a moment to {soonest.worker_id}, which is busy and would be ready for it sooner"
        basis = "how long a job is left to a worker that is ready sooner"
        return explained(summary, estimate_s=left_s, basis=basis)
    free = sum(max(0, one.slots - one.busy) for one in able)
    if free and (position is None or position <= free):
        return explained("a worker is free for it: it begins at once", estimate_s=0.0, basis="a free slot")
    summary = f"every slot that could run it is busy ({slots} on {_count(len(able), 'worker')})"
    if free:
        summary = f"{_count(free, 'slot')} that could run it {'is' if free == 1 else 'are'} free"
    if position is not None and position > 1:
        least = "at least " if is_least else ""
        summary += (
            f", and {least}{_count(position - 1, 'waiting job')} {'comes' if position == 2 else 'come'} before it"
        )
    if place is None or recent is None:
        return explained(summary)
    if is_least:
        return explained(summary, basis="more jobs wait in more lines than can be looked at: none is given")
    mean_s, count = recent
    basis = f"{_count(count, f'recent {job.service_required} job')} took {mean_s:.1f} s{' each' if count > 1 else ''}"
    estimate_s = round((place.number - free) * mean_s / slots, 1)
    return explained(summary, estimate_s=estimate_s, basis=f"{basis}, on {_count(slots, 'slot')}")


def _verdict(job: Job, worker: WorkerView, busy: dict[tuple[str, str], int]) -> WorkerVerdict:
    verdict = match_job(job.requirement, job.customer_id, worker.capabilities)
    if not isinstance(verdict, Match):
        return WorkerVerdict(worker.id, False, verdict.reasons)
    service = worker.capabilities.services[verdict.service]
    taken = sum(busy.get((worker.id, accepted), 0) for accepted in service.accepts or (verdict.service,))
    return WorkerVerdict(worker.id, True, (), verdict.penalty_ms, taken, service.slots)


def _refusals(verdicts: Sequence[WorkerVerdict]) -> list[str]:
    return [f"{one.worker_id}: {', '.join(one.reasons)}" for one in verdicts]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


async def _busy_slots(calls: Calls) -> dict[tuple[str, str], int]:
    """Running jobs by worker and required service."""

    async def read() -> Any:
        ids = await calls.client.zrange(calls.keys.index("active"), 0, _ACTIVE_MOST - 1)
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(calls.keys.job(job_id), "worker_id", "service_required")
            return await pipe.execute()

    busy: dict[tuple[str, str], int] = {}
    for worker_id, service in await calls.repeated(read):
        busy[worker_id, service] = busy.get((worker_id, service), 0) + 1
    return busy


async def _at_cap(calls: Calls, job: Job) -> str | None:
    customer = job.customer_id
    if customer is None:
        return None
    if not await calls.repeated(lambda: calls.client.hexists(calls.keys.parked(customer), job.lane)):
        return None
    running = await calls.repeated(lambda: calls.client.hget(calls.keys.fixed("customers_active"), customer))
    return f"customer {customer} is at its cap: {running or 0} of its jobs run now, and this one waits for one of them to end"
