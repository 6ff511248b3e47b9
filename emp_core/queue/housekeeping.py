"""`Housekeeping`: what the one worker that keeps house asks of the queue. Every call is one try, as the consumer's are."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.jobs.ids import is_job_id
from emp_core.jobs.requirements import Requirement
from emp_core.queue.calls import keeping
from emp_core.queue.explain import tell_unserved
from emp_core.queue.keys import Keys
from emp_core.queue.scripts import load_script
from emp_core.queue.workers import WorkerReader, WorkerView

__all__ = ["Housekeeping", "Sweep"]

_KEEPER_S = 6.0
_BATCH = 100
_AUDITED_AT_ONCE = 20
"""Everybody else waits for a script; this one takes 7 µs a job and is not urgent."""
_LANE_IDLE_US = 3_600_000_000
_GLOB = re.compile(r"[*?\[\]\\]")


@frozen
class Sweep:
    """What one round of housekeeping did. ``next_due_s``: in how many seconds there is more to do; None if nothing is known."""

    is_keeper: bool
    next_due_s: float | None = None
    rescued: int = 0
    promoted: int = 0
    expired: int = 0
    dead_workers: int = 0
    trimmed: int = 0
    taken_back: int = 0


class Housekeeping:
    """The calls of whoever keeps house.

    Args:
        client: a redis-py client; a call that fails because Redis is away raises what it raises.
        worker_id: ``WORKER_ID@MACHINE_ID``.

    Attributes:
        keeper_s: how long whoever keeps house may be silent before another worker does.
    """

    def __init__(self, client: Any, settings: Settings, *, worker_id: str) -> None:
        self.client = client
        self.keys = Keys(settings.namespace)
        self.worker_id = worker_id
        self._settings = settings
        self.keeper_s = min(_KEEPER_S, settings.lease_s)
        self._workers = WorkerReader(self.keys)
        self._sweep = load_script("sweep").bound(self.keys, keeping(settings))
        self._audit = load_script("audit").bound(self.keys, {"events_max": settings.events_max})

    async def redis_s(self) -> float:
        """Redis's clock, in seconds since 1970."""
        seconds, micros = await self.client.time()
        return float(seconds + micros / 1e6)

    async def sweep(self, *, rescue: bool) -> Sweep:
        """Keep house for one batch, if nobody else does.

        Args:
            rescue: whether ended leases are taken away now; not while clocks are in doubt.
        """
        arguments = {
            "worker": self.worker_id,
            "keeper_ms": round(self.keeper_s * 1000),
            "rescue": int(rescue),
            "max_attempts": self._settings.max_attempts,
            "max_crashes": self._settings.max_crashes,
            "batch": _BATCH,
            "lane_idle_us": _LANE_IDLE_US,
        }
        code, now, due, *counts = await self._sweep(self.client, arguments)
        if int(code) == 0:
            return Sweep(is_keeper=False)
        next_due_s = None if due == "0" else max(0.0, (float(due) - float(now)) / 1e6)
        return Sweep(True, next_due_s, *(int(count) for count in counts))

    async def unserved_jobs(self, most: int = 100) -> dict[str, Requirement]:
        """The first jobs of lanes that nobody serves and that were not told so yet, with what they require."""
        lanes = await self.client.zrange(self.keys.fixed("heads"), 0, most - 1)
        async with self.client.pipeline(transaction=False) as pipe:
            for lane in lanes:
                pipe.zcard(self.keys.lane_workers(lane))
                pipe.hget(self.keys.fixed("lanes"), lane)
                pipe.zrange(self.keys.turns(lane), 0, 0)
            replies = await pipe.execute()
        found: dict[str, Requirement] = {}
        for lane, serving, text, first in zip(lanes, replies[::3], replies[1::3], replies[2::3], strict=True):
            if serving or text is None or not first:
                continue
            [job_id] = await self.client.zrange(self.keys.line(lane, first[0]), 0, 0) or [None]
            if job_id and not await self.client.hexists(self.keys.job(job_id), "unserved"):
                with suppress(ConfigError):  # the workers have said that they cannot read it
                    found[job_id] = Requirement.from_json(text)
        return found

    async def some_jobs(self, cursor: int, keys: int) -> tuple[int, list[str]]:
        """Ids of jobs among the next ``keys`` keys, and where to go on; 0 begins again."""
        start = f"{self.keys.namespace}jobs:"
        pattern = f"{_GLOB.sub(lambda found: '[' + found[0] + ']', start)}*"
        cursor, found = await self.client.scan(cursor, match=pattern, count=keys)
        names = (key.removeprefix(start) for key in found)
        return int(cursor), [name for name in names if is_job_id(name)]

    async def audit(self, job_ids: Sequence[str]) -> list[str]:
        """Put jobs that stand in no index where their state says; the ids of those that were."""
        mended: list[str] = []
        for start in range(0, len(job_ids), _AUDITED_AT_ONCE):
            mended += await self._audit(self.client, {}, job_ids[start : start + _AUDITED_AT_ONCE])
        return mended

    async def workers(self) -> list[WorkerView]:
        """The live workers."""
        return await self._workers.read(self.client)

    async def tell_unserved(self, job_id: str, reasons: Sequence[str]) -> None:
        """Write into a job's events that nobody can run it, and that this was written."""
        await tell_unserved(self._run, job_id, reasons, events_max=self._settings.events_max)

    async def _run(self, script: str, arguments: Mapping[str, Any]) -> Any:
        return await load_script(script).bound(self.keys)(self.client, arguments)
