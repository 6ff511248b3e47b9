"""A waiting job's place, and about how long until it begins: what the scripts would do next, without doing it."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from attrs import frozen

from emp_core.jobs.matching import customer_reasons
from emp_core.jobs.model import Job
from emp_core.queue.calls import Calls
from emp_core.queue.reading import read_us
from emp_core.queue.scripts import load_script
from emp_core.queue.turns import Line, claims_before
from emp_core.queue.workers import WorkerView

__all__ = ["COLD_MAX_S", "COLD_SHARE", "Place", "Readiness", "left_to_a_warmer_one_s", "mean_run_s", "place_of"]

COLD_SHARE, COLD_MAX_S = 0.3, 30.0
"""As in claim.lua: how long a worker that has to get ready first leaves a job to one that is ready sooner."""
_SAMPLE = 50
"""Recent jobs that an estimate is based on."""
_LANES_MOST = 1000
_LINES_MOST = 2000
_READ_LEAST, _READ_OF_OWN, _READ_MOST, _READ_AT_ONCE = 5, 500, 4000, 100
"""Waiting jobs whose times are read: of each line at least, of the job's own, of all together, and by one script, for which
everybody else waits. Of longer lines some are read, evenly spread."""
_WORKERS_MOST = 20
"""Workers that are asked which lanes they serve."""


@frozen
class Readiness:
    """A worker that could run a job: its expected time to get ready for it, and whether it has a free slot."""

    worker_id: str
    penalty_ms: int
    is_free: bool


@frozen
class Place:
    """A job's place in the order in which those that can run it will take what waits for them.

    Attributes:
        is_least: more lines wait than were looked at: it is this place or a later one.
    """

    number: int
    is_least: bool = False


async def place_of(calls: Calls, job: Job, able: Sequence[WorkerView], *, pace_s: float = 0.0) -> Place | None:
    """The job's place, by the rule of turns; None when it does not wait.

    Reads at most 1,000 lanes, 2,000 lines in all, and the times of some 10,000 jobs at most.

    Args:
        able: the workers that can run it.
        pace_s: about how long it takes from one claim to the next; 0 where that is not known.
    """
    customer = job.customer_id or ""
    own = (job.lane, customer)
    penalties, lanes_left = await _lanes_of(calls, job.lane, able)
    turns, lines_left = await _lines_of(calls, penalties, own, able)

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrank(calls.keys.line(*own), job.id)
            pipe.zscore(calls.keys.line(*own), job.id)
            pipe.zscore(calls.keys.turns(job.lane), customer)
            pipe.hget(calls.keys.parked(customer), job.lane)
            pipe.hlen(calls.keys.fixed("waiting"))
            pipe.zcard(calls.keys.line(*own))
            for line in turns:
                pipe.zcard(calls.keys.line(*line))
            return await pipe.execute()

    (seconds, micros), rank, arrival, turn, parked, customers, *lengths = await calls.repeated(read)
    if rank is None or arrival is None:
        return None
    turns = {own: float(turn or parked or arrival) + penalties[job.lane], **turns}
    earlier = await _earlier(calls, [line for line in turns if line[1] == customer], arrival, penalties, job.lane)
    read_of = await _read_of(calls, list(turns), lengths)
    lines = [
        Line(line[1], turns[line], penalties[line[0]], length, *read_of[line], earlier.get(line, 0))
        for line, length in zip(turns, lengths, strict=True)
        if length
    ]
    before = claims_before(
        lines[0],
        int(rank),
        lines[1:],
        now_us=seconds * 1e6 + micros,
        pace_us=pace_s * 1e6,
        others_wait=customers > len({line.customer for line in lines}),
    )
    return Place(1 + before, lanes_left or lines_left)


async def _lanes_of(calls: Calls, own: str, able: Sequence[WorkerView]) -> tuple[dict[str, float], bool]:
    """The job's own lane and those with waiting jobs that one of the workers serves, with the least penalty in µs; and
    whether there are more."""

    async def heads() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            pipe.zrange(calls.keys.fixed("heads"), 0, _LANES_MOST - 1)
            pipe.zcard(calls.keys.fixed("heads"))
            return await pipe.execute()

    found, count = await calls.repeated(heads)
    lanes = [own, *(lane for lane in found if lane != own)]

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for worker in able[:_WORKERS_MOST]:
                pipe.zmscore(calls.keys.worker(worker.id, "lanes"), lanes)
            return await pipe.execute()

    served: dict[str, float] = {}
    for penalties in await calls.repeated(read) if able else ():
        for lane, penalty_ms in zip(lanes, penalties, strict=True):
            if penalty_ms is not None:
                served[lane] = min(penalty_ms * 1000, served.get(lane, penalty_ms * 1000))
    return {own: served.pop(own, 0.0), **served}, count > len(found)


async def _lines_of(
    calls: Calls, penalties: Mapping[str, float], own: tuple[str, str], able: Sequence[WorkerView]
) -> tuple[dict[tuple[str, str], float], bool]:
    """Turn + penalty of the other lines that wait in these lanes for one of the workers; and whether there are more."""
    most = max(2, _LINES_MOST // len(penalties))

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for lane in penalties:
                pipe.zrange(calls.keys.turns(lane), 0, most, withscores=True)
            return await pipe.execute()

    found = await calls.repeated(read)

    @cache
    def is_admitted(customer: str) -> bool:
        return not able or any(not customer_reasons(customer or None, one.capabilities) for one in able)

    turns = {
        (lane, customer): turn + penalties[lane]
        for lane, customers in zip(penalties, found, strict=True)
        for customer, turn in customers[:most]
        if (lane, customer) != own and is_admitted(customer)
    }
    return turns, any(len(customers) > most for customers in found)


async def _earlier(
    calls: Calls, lines: Sequence[tuple[str, str]], arrival: float, penalties: Mapping[str, float], own: str
) -> dict[tuple[str, str], int]:
    """How many jobs of these lines come before one of this arrival, where nobody takes turns."""

    async def read() -> Any:
        async with calls.client.pipeline(transaction=False) as pipe:
            for line in lines:
                until = arrival + penalties[own] - penalties[line[0]]
                pipe.zcount(calls.keys.line(*line), "-inf", f"({until:.0f}")
            return await pipe.execute()

    return dict(zip(lines, await calls.repeated(read), strict=True))


async def _read_of(
    calls: Calls, lines: Sequence[tuple[str, str]], lengths: Sequence[int]
) -> dict[tuple[str, str], tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
    """What `Line` tells of the jobs that wait in these lines behind the first: head starts and arrivals."""
    most = max(_READ_LEAST, _READ_MOST // len(lines))
    # The first line is the job's own: how often its customer has its turn decides what the others take.
    places = [_spread(length, most if i else max(most, _READ_OF_OWN)) for i, length in enumerate(lengths)]
    asked: list[tuple[Mapping[str, Any], list[Any]]] = []
    for line, looked_at in zip(lines, places, strict=True):
        for start in range(0, len(looked_at), _READ_AT_ONCE):
            some = looked_at[start : start + _READ_AT_ONCE]
            if not asked or len(asked[-1][1]) + len(some) > _READ_AT_ONCE:
                asked.append(({}, []))
            asked[-1][1].extend((*line, len(some), *some))
    script = load_script("sample").bound(calls.keys)
    replies = await calls.repeated(lambda: script.together(calls.client, asked)) if asked else []
    told = iter([float(one) for reply in replies for one in reply])
    read_of: dict[tuple[str, str], tuple[list[tuple[int, float]], list[tuple[int, float]]]] = {}
    for line, looked_at, length in zip(lines, places, lengths, strict=True):
        pairs = [(next(told), next(told)) for _ in looked_at]
        # What lies between two that were looked at is like the nearer one.
        ends = [(place + following + 1) // 2 for place, following in pairwise(looked_at)]
        until = {end: head_start for end, (head_start, _) in zip([*ends, length], pairs, strict=False)}
        runs = [[*run][-1] for _, run in groupby(until.items(), key=itemgetter(1))]
        read_of[line] = (runs, [(place, arrival) for place, (_, arrival) in zip(looked_at, pairs, strict=True)])
    return read_of


def _spread(length: int, most: int) -> list[int]:
    """At most so many places of a line behind the first, evenly spread."""
    count = min(most, length - 1)
    return [1 + i * (length - 2) // max(1, count - 1) for i in range(count)]


async def mean_run_s(calls: Calls, service: str) -> tuple[float, int] | None:
    """How long recent jobs of the service ran on average, and how many those were; None when there were none."""

    async def read() -> Any:
        ids = await calls.client.zrevrange(calls.keys.index("completed"), 0, _SAMPLE - 1)
        async with calls.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(calls.keys.job(job_id), "service_required", "started_at", "finished_at")
            return await pipe.execute()

    took_s = [
        (ended_us - began_us) / 1e6
        for required, started, finished in await calls.repeated(read)
        if required == service and (began_us := read_us(started)) and (ended_us := read_us(finished))
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
    waited_s = seconds + micros / 1e6 - (read_us(pending_at or created_at) or 0) / 1e6
    ripe_s = min(min(COLD_MAX_S, COLD_SHARE * one.penalty_ms / 1000) for one in free)
    return round(ripe_s - waited_s, 1) if waited_s < ripe_s else None
