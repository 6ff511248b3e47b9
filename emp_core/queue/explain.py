"""Why a job is where it is: its position, what it waits for, and what each live worker says to it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from emp_core.jobs.matching import Capabilities, Match, match
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls
from emp_core.queue.workers import WorkerView

__all__ = ["Explanation", "WorkerVerdict", "explain", "unserved_reasons"]

_SAMPLE = 50
"""Recent jobs that an estimate is based on."""
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
        position: how many waiting jobs come before it by virtual arrival, plus one; None unless it waits.
        estimate_s: about how long until it begins; None where nothing can be said. ``basis`` says what it comes from.
    """

    job_id: str
    status: JobState
    summary: str
    position: int | None = None
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
        return {**shown, "estimate_s": self.estimate_s, "basis": self.basis, "workers": workers}


def unserved_reasons(requirement: Requirement, workers: Sequence[WorkerView]) -> list[str]:
    """Why no live worker can run such jobs; empty when one can."""
    judged = [(worker.id, match(requirement, worker.capabilities)) for worker in workers]
    if any(isinstance(verdict, Match) for _, verdict in judged):
        return []
    if not workers:
        return ["no worker is alive"]
    return [f"{name}: {', '.join(verdict.reasons)}" for name, verdict in judged if not isinstance(verdict, Match)]


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
    when = f"{datetime.fromtimestamp(due_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC" if due_us else "a moment from now"
    if job.attempt and job.error is not None:
        return f"attempt {job.attempt} failed ({job.error.code}: {job.error.message}); the next one may begin at {when}"
    return f"it was submitted to begin at {when}"


async def _explain_pending(calls: Calls, job: Job, workers: Sequence[WorkerView]) -> Explanation:
    busy = await _busy_slots(calls)
    verdicts = tuple(_verdict(job.requirement, worker.capabilities, busy) for worker in workers)
    position = await _position(calls, job)
    able = [one for one in verdicts if one.can_run]
    if not able:
        reasons = "; ".join(unserved_reasons(job.requirement, workers))
        return Explanation(job.id, job.status, f"no live worker can run it: {reasons}", position, workers=verdicts)
    if capped := await _at_cap(calls, job):
        return Explanation(job.id, job.status, capped, position, workers=verdicts)
    if (refused := _customer_refused(job, workers)) is not None:
        return Explanation(job.id, job.status, refused, position, workers=verdicts)
    ready = [one for one in able if one.busy < one.slots]
    estimate_s, basis = await _estimate(calls, job, able, position)
    if not ready:
        summary = f"every slot that could run it is busy ({sum(one.slots for one in able)} on {len(able)} workers)"
    elif all(one.penalty_ms > 0 for one in ready) and any(one.penalty_ms == 0 for one in able):
        summary = "it is left for a moment to a busy worker that has what it needs loaded"
    else:
        summary = "a worker is free for it: it begins at once"
    if position and position > 1:
        summary += f"; {position - 1} waiting jobs come before it"
    return Explanation(job.id, job.status, summary, position, estimate_s, basis, verdicts)


def _verdict(requirement: Requirement, offered: Capabilities, busy: dict[tuple[str, str], int]) -> WorkerVerdict:
    verdict = match(requirement, offered)
    if not isinstance(verdict, Match):
        return WorkerVerdict(offered.worker_id, False, verdict.reasons)
    service = offered.services[verdict.service]
    taken = sum(busy.get((offered.worker_id, accepted), 0) for accepted in service.accepts or (verdict.service,))
    return WorkerVerdict(offered.worker_id, True, (), verdict.penalty_ms, taken, service.slots)


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


async def _position(calls: Calls, job: Job) -> int | None:
    rank = await calls.repeated(lambda: calls.client.zrank(calls.keys.index("pending"), job.id))
    return None if rank is None else int(rank) + 1


async def _at_cap(calls: Calls, job: Job) -> str | None:
    customer = job.customer_id
    if customer is None:
        return None
    if not await calls.repeated(lambda: calls.client.hexists(calls.keys.parked(customer), job.lane)):
        return None
    running = await calls.repeated(lambda: calls.client.hget(calls.keys.fixed("customers_active"), customer))
    return f"customer {customer} is at its cap: {running or 0} of its jobs run now, and this one waits for one of them to end"


def _customer_refused(job: Job, workers: Sequence[WorkerView]) -> str | None:
    """Workers' own lists hold for every job of a lane, whether it asked for isolation or not."""
    customer = job.customer_id or ""
    offers = [
        worker.capabilities for worker in workers if isinstance(match(job.requirement, worker.capabilities), Match)
    ]
    if any((not one.allow or customer in one.allow) and customer not in one.deny for one in offers):
        return None
    return f"no worker that could run it takes jobs of {f'customer {customer}' if customer else 'no customer'}"


async def _estimate(
    calls: Calls, job: Job, able: Sequence[WorkerVerdict], position: int | None
) -> tuple[float | None, str | None]:
    """Jobs that come before it, times how long such jobs took lately, over the slots that there are."""

    async def read() -> Any:
        ids = await calls.client.zrevrange(calls.keys.index("completed"), 0, _SAMPLE - 1)
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(calls.keys.job(job_id), "service_required", "started_at", "finished_at")
            return await pipe.execute()

    took_s = [
        (float(finished) - float(started)) / 1e6
        for service, started, finished in await calls.repeated(read)
        if service == job.service_required and started and finished
    ]
    slots = sum(one.slots for one in able)
    if position is None or not slots:
        return None, None
    if any(one.busy < one.slots and one.penalty_ms == 0 for one in able) and position <= slots:
        return 0.0, "a free slot"
    if not took_s:
        return None, None
    mean_s = sum(took_s) / len(took_s)
    return round(
        position * mean_s / slots, 1
    ), f"{len(took_s)} recent {job.service_required} jobs took {mean_s:.1f} s each"
