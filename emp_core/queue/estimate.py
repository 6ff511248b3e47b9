"""A waiting job's place, and about how long until it begins: what the scripts would do next, without doing it."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from emp_core.jobs.model import Job
from emp_core.queue.calls import Calls

__all__ = ["COLD_MAX_S", "COLD_SHARE", "Readiness", "left_to_a_warmer_one_s", "mean_run_s", "place_of"]

COLD_SHARE, COLD_MAX_S = 0.3, 30.0
"""As in claim.lua: how long a worker that has to get ready first leaves a job to one that is ready sooner."""
_SAMPLE = 50
"""Recent jobs that an estimate is based on."""
_LANES_MOST = 200
_CUSTOMERS_MOST = 200
_LINES_MOST = 2000


@frozen
class Readiness:
    """A worker that could run a job: its expected time to get ready for it, and whether it has a free slot."""

    worker_id: str
    penalty_ms: int
    is_free: bool


async def place_of(calls: Calls, job: Job, workers: Sequence[str]) -> int | None:
    """The job's place in the order in which these workers will take what waits for them; None when it does not wait.

    Of other customers, who take turns with this one, as many jobs come before it as it has turns to wait itself. Looks at
    200 lanes, 200 customers of each, and 2000 lines in all; what waits beyond them is not counted.
    """
    own = (job.lane, job.customer_id or "")
    lanes = await _lanes_before(calls, job.lane, workers)
    lines = await _lines_of(calls, lanes, own)

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.zrank(calls.keys.line(*own), job.id)
            pipe.zscore(calls.keys.line(*own), job.id)
            pipe.hlen(calls.keys.fixed("waiting"))
            for line in lines:
                pipe.zrange(calls.keys.line(*line), 0, 0, withscores=True)
                pipe.zcard(calls.keys.line(*line))
            return await pipe.execute()

    rank, arrival, customers, *found = await calls.repeated(read)
    if rank is None:
        return None
    if customers > 1:
        return 1 + int(rank) + sum(min(int(length), int(rank) + 1) for length in found[1::2])
    before = await _earlier(calls, [line for line, first in zip(lines, found[::2], strict=True) if first], arrival)
    return 1 + int(rank) + before


async def _lanes_before(calls: Calls, own: str, workers: Sequence[str]) -> list[str]:
    """The lanes with waiting jobs that one of the workers serves, and the job's own."""

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.zrange(calls.keys.fixed("heads"), 0, _LANES_MOST - 1)
            for worker in workers:
                pipe.zrange(calls.keys.worker(worker, "lanes"), 0, -1)
            return await pipe.execute()

    heads, *served = await calls.repeated(read)
    known = {lane for lanes in served for lane in lanes}
    return [own, *(lane for lane in heads if lane in known and lane != own)]


async def _lines_of(calls: Calls, lanes: Sequence[str], own: tuple[str, str]) -> list[tuple[str, str]]:
    """The lines of other customers, or of other lanes, whose turns come around."""

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for lane in lanes:
                pipe.zrange(calls.keys.turns(lane), 0, _CUSTOMERS_MOST - 1)
            return await pipe.execute()

    turns = await calls.repeated(read)
    lines = [(lane, customer) for lane, customers in zip(lanes, turns, strict=True) for customer in customers]
    return [line for line in lines if line != own][:_LINES_MOST]


async def _earlier(calls: Calls, lines: Sequence[tuple[str, str]], arrival: float) -> int:
    """How many jobs of these lines come before one of this arrival, where nobody takes turns."""

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for line in lines:
                pipe.zcount(calls.keys.line(*line), "-inf", f"({arrival:.0f}")
            return await pipe.execute()

    return sum(await calls.repeated(read)) if lines else 0


async def mean_run_s(calls: Calls, service: str) -> tuple[float, int] | None:
    """How long recent jobs of the service ran on average, and how many those were; None when there were none."""

    async def read() -> Any:
        ids = await calls.client.zrevrange(calls.keys.index("completed"), 0, _SAMPLE - 1)
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(calls.keys.job(job_id), "service_required", "started_at", "finished_at")
            return await pipe.execute()

    took_s = [
        (float(finished) - float(started)) / 1e6
        for required, started, finished in await calls.repeated(read)
        if required == service and started and finished
    ]
    return (sum(took_s) / len(took_s), len(took_s)) if took_s else None


async def left_to_a_warmer_one_s(calls: Calls, job: Job, able: Sequence[Readiness]) -> float | None:
    """How long every free worker still leaves the job to one that is ready sooner; None when one takes it now."""
    least = min(one.penalty_ms for one in able)
    free = [one for one in able if one.is_free]
    if not free or any(one.penalty_ms == least for one in free):
        return None

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.hmget(calls.keys.job(job.id), "pending_at", "created_at")
            pipe.time()
            return await pipe.execute()

    (pending_at, created_at), (seconds, micros) = await calls.repeated(read)
    waited_s = seconds + micros / 1e6 - float(pending_at or created_at or 0) / 1e6
    ripe_s = min(min(COLD_MAX_S, COLD_SHARE * one.penalty_ms / 1000) for one in free)
    return round(ripe_s - waited_s, 1) if waited_s < ripe_s else None
