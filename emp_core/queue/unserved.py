"""Jobs that nobody can serve: the verdict on them, and telling it in their events."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio.lowlevel

from emp_core.errors import ConfigError
from emp_core.jobs.codec import dumps
from emp_core.jobs.matching import Match, customer_reasons, match, match_job
from emp_core.jobs.requirements import Requirement
from emp_core.log.logger import get_logger
from emp_core.queue.keys import Keys
from emp_core.queue.rounds import Rounds
from emp_core.queue.workers import WorkerReader, WorkerView

__all__ = ["Unserved", "tell_unserved", "unserved_reasons"]

log = get_logger("emp.unserved")

_Run = Callable[[str, Mapping[str, Any], Sequence[str]], Awaitable[Any]]

_LANES = 200
_CUSTOMERS = 500
_JOBS = 1000
"""Of each, about so many are looked at in one look; the next one goes on there."""
_TOLD_AT_ONCE = 50
"""Everybody else waits for a script; this one takes up to 10 µs a job and is not urgent."""


def unserved_reasons(requirement: Requirement, customer: str | None, workers: Sequence[WorkerView]) -> list[str]:
    """Why no live worker can run such jobs of this customer (None: of nobody); empty when one can."""
    reasons: list[str] = []
    for worker in workers:
        verdict = match_job(requirement, customer, worker.capabilities)
        if isinstance(verdict, Match):
            return []
        reasons.append(f"{worker.id}: {', '.join(verdict.reasons)}")
    return reasons or ["no worker is alive"]


async def tell_unserved(
    run: _Run, line: tuple[str, str], job_ids: Sequence[str], reasons: Sequence[str], *, events_max: int
) -> int:
    """Write into the events of waiting jobs that nobody can run them; gives how many had not been told yet.

    No worker comes by either that would take out jobs whose data is gone: that is done here.

    Args:
        run: runs a script by its name.
        line: lane and customer of the jobs.
    """
    lane, customer = line
    fragment = f',"reasons":{dumps(list(reasons))}'
    arguments = {"events_max": events_max, "lane": lane, "customer": customer, "fragment": fragment}
    told, gone = 0, []
    for start in range(0, len(job_ids), _TOLD_AT_ONCE):
        now_told, *now_gone = await run("unserved", arguments, job_ids[start : start + _TOLD_AT_ONCE])
        told += int(now_told)
        gone += now_gone
    if gone:
        log.error("jobs whose data is gone were taken out of their line", jobs=gone)
    return told


class Unserved:
    """Finds waiting jobs that nobody can serve, some at a time and in the end all of them, and tells each of them.

    Args:
        client: a redis-py client; a call that fails because Redis is away raises what it raises.
        run: runs a script by its name.
    """

    def __init__(self, client: Any, keys: Keys, run: _Run, *, events_max: int) -> None:
        self._client = client
        self._keys = keys
        self._run = run
        self._events_max = events_max
        self._reader = WorkerReader(keys)
        self._rounds = Rounds(client)

    async def look(self) -> int:
        """Look at the next of them; gives how many were told."""
        [lanes] = await self._rounds.next_of([self._keys.fixed("heads")], _LANES)
        waiting = await self._suspects(lanes)
        if not waiting:
            return 0
        workers = await self._reader.read(self._client)
        lines = await self._lines(waiting, workers)
        if not lines:
            return 0
        found = await self._rounds.next_of([self._keys.line(*line) for line in lines], _JOBS)
        told: dict[tuple[str, ...], int] = {}
        for (line, reasons), job_ids in zip(lines.items(), found, strict=True):
            now_told = await tell_unserved(self._run, line, job_ids, reasons, events_max=self._events_max)
            if now_told:
                told[reasons] = told.get(reasons, 0) + now_told
        for reasons, jobs in told.items():
            log.warning("no live worker can run these jobs", jobs=jobs, reasons=reasons)
        return sum(told.values())

    async def _suspects(self, lanes: Sequence[str]) -> dict[str, Requirement]:
        """The lanes with a customer that perhaps nobody serves: those that no worker serves; all, where workers choose."""
        async with self._client.pipeline(transaction=False) as pipe:
            for lane in lanes:
                pipe.zcard(self._keys.lane_workers(lane))
                pipe.hget(self._keys.fixed("lanes"), lane)
            replies = await pipe.execute()
        served = dict(zip(lanes, replies[::2], strict=True))
        are_choosy = any(served.values()) and await self._some_choose_customers()
        found: dict[str, Requirement] = {}
        for lane, text in zip(lanes, replies[1::2], strict=True):
            if text is not None and (are_choosy or not served[lane]):
                with suppress(ConfigError):  # the workers have said that they cannot read it
                    found[lane] = Requirement.from_json(text)
        return found

    async def _some_choose_customers(self) -> bool:
        """Whether a worker has a list of customers: what else a worker says may be long, and is not asked."""
        ids = await self._client.zrange(self._keys.fixed("workers"), 0, -1)
        async with self._client.pipeline(transaction=False) as pipe:
            for worker_id in ids:
                pipe.hmget(self._keys.worker(worker_id, "capabilities"), "allow", "deny")
            replies = await pipe.execute()
        return any(told not in (None, "[]") for lists in replies for told in lists)

    async def _lines(
        self, waiting: Mapping[str, Requirement], workers: Sequence[WorkerView]
    ) -> dict[tuple[str, str], tuple[str, ...]]:
        """The lines that nobody serves, by lane and customer, and why."""
        customers_of = await self._rounds.next_of([self._keys.turns(lane) for lane in waiting], _CUSTOMERS)
        lines: dict[tuple[str, str], tuple[str, ...]] = {}
        for (lane, requirement), customers in zip(waiting.items(), customers_of, strict=True):
            await anyio.lowlevel.checkpoint()
            able = [one.capabilities for one in workers if isinstance(match(requirement, one.capabilities), Match)]
            alike = () if able else tuple(unserved_reasons(requirement, None, workers))
            for customer in customers:
                if all(customer_reasons(customer or None, one) for one in able):
                    lines[lane, customer] = alike or tuple(unserved_reasons(requirement, customer or None, workers))
        return lines
