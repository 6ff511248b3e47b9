"""`Housekeeping`: what the one worker that keeps house asks of the queue. Every call is one try, as the consumer's are."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from emp_core.config import Settings
from emp_core.jobs.ids import is_job_id
from emp_core.queue.calls import keeping
from emp_core.queue.keys import Keys
from emp_core.queue.recount import recount
from emp_core.queue.rounds import Rounds
from emp_core.queue.scripts import load_script
from emp_core.queue.unserved import Unserved

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
        self._rounds = Rounds(client)
        self._unserved = Unserved(client, self.keys, self._run, events_max=settings.events_max)
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

    async def some_jobs(self, cursor: int, keys: int) -> tuple[int, list[str]]:
        """Ids of jobs among the next ``keys`` keys, and where to go on; 0 begins again."""
        start = f"{self.keys.namespace}jobs:"
        pattern = f"{_GLOB.sub(lambda found: '[' + found[0] + ']', start)}*"
        cursor, found = await self.client.scan(cursor, match=pattern, count=keys)
        names = (key.removeprefix(start) for key in found)
        return int(cursor), [name for name in names if is_job_id(name)]

    async def named_jobs(self, most: int) -> list[str]:
        """Ids of the next jobs, about ``most``, of those that stand among the waiting and the scheduled ones; in the end of all."""
        found = await self._rounds.next_of([self.keys.fixed("pending"), self.keys.fixed("scheduled")], most)
        return [job_id for some in found for job_id in some]

    async def audit(self, job_ids: Sequence[str]) -> list[str]:
        """Put jobs that stand in no index where their state says, and forget those whose data is gone; the ids of both."""
        mended: list[str] = []
        for start in range(0, len(job_ids), _AUDITED_AT_ONCE):
            mended += await self._audit(self.client, {}, job_ids[start : start + _AUDITED_AT_ONCE])
        return mended

    async def recount(self) -> dict[str, int]:
        """Correct how many jobs each customer runs; how many were counted that do not run, by customer."""
        return await recount(self.client, self.keys, self._run)

    async def tell_unserved(self) -> int:
        """Tell some waiting jobs that nobody can serve, in their events; gives how many. Called again it goes on."""
        return await self._unserved.look()

    async def _run(self, script: str, arguments: Mapping[str, Any], rest: Sequence[Any]) -> Any:
        return await load_script(script).bound(self.keys)(self.client, arguments, rest)
