"""Housekeeping: one worker at a time ends leases, begins what is due, and forgets what is old."""

import time
from collections.abc import Callable, Sequence

import anyio

from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY
from emp_core.queue.housekeeping import Housekeeping

__all__ = ["Keeper"]

log = get_logger("emp.keeper")

_LOOK_S = 2.0
"""How often the keeper looks at least, whatever is due."""
_CLOCK_JUMP_S = 5.0
_SETTLE_S = 2.0
_UNSERVED_EVERY_S = 3.0
_UNSERVED_SOON_S = 1.0
"""Where one is, others are."""
_AUDIT_EVERY_S = 2.0
_AUDIT_KEYS = 400
"""Few at a time: jobs that are submitted meanwhile wait for it."""
_INDEXES_EVERY_S = 10.0
_INDEXES_JOBS = 400


class Keeper:
    """Keeps house whenever nobody else does.

    Args:
        clock: seconds that only ever grow, to tell when Redis's clock jumped or this process was stopped.
    """

    def __init__(self, house: Housekeeping, lease_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._house = house
        self._lease_s = lease_s
        self._clock = clock
        self._wanted = anyio.Event()
        self._last: tuple[float, float] | None = None
        self._no_rescue_before = 0.0
        self._look_for_unserved_at = 0.0
        self._look_for_strays_at = 0.0
        self._look_at_indexes_at = 0.0
        self._due = anyio.Event()
        self._keeps = False
        self._cursor = 0

    def keep(self) -> None:
        """Told when nobody keeps house."""
        self._wanted.set()

    def something_is_due(self) -> None:
        """Told when something is due sooner than what was known of."""
        self._due.set()

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            await self._wanted.wait()
            self._due = anyio.Event()
            try:
                pause_s = await self._round()
            except AWAY as error:
                log.warning("housekeeping waits for redis", error=str(error))
                pause_s = 1.0
                self._keeps = False  # the others could not reach it either, maybe
            with anyio.move_on_after(pause_s):
                await self._due.wait()

    async def _round(self) -> float:
        """One round; gives how long until the next."""
        self.clock_seen(await self._house.redis_s())
        held_s = self._rescue_in_s()
        swept = await self._house.sweep(rescue=held_s <= 0)
        if not swept.is_keeper:
            self._wanted = anyio.Event()
            self._keeps = False
            return 0.0
        if swept.rescued or swept.dead_workers:
            log.warning("lost workers", rescued_jobs=swept.rescued, workers=swept.dead_workers)
        look_s = min(_LOOK_S, self._house.keeper_s / 3)
        if await self._tell_unserved():
            look_s = min(look_s, _UNSERVED_SOON_S)
        await self._audit()
        await self._audit_indexes()
        if held_s > 0:
            look_s = min(look_s, held_s)
        return look_s if swept.next_due_s is None else min(look_s, max(0.01, swept.next_due_s))

    def _rescue_in_s(self) -> float:
        """How long until leases may be ended. Not at once: when all workers could not reach Redis, the first that can again
        becomes the keeper, and the others get a moment to renew their leases, too."""
        if not self._keeps:
            self._keeps = True
            self._no_rescue_before = max(self._no_rescue_before, self._clock() + min(_SETTLE_S, self._lease_s / 3))
        return self._no_rescue_before - self._clock()

    async def _audit(self) -> None:
        """Look at a few keys for jobs that stand in no index."""
        if self._clock() < self._look_for_strays_at:
            return
        self._look_for_strays_at = self._clock() + _AUDIT_EVERY_S
        self._cursor, job_ids = await self._house.some_jobs(self._cursor, _AUDIT_KEYS)
        await self._mend(job_ids)

    async def _mend(self, job_ids: Sequence[str]) -> None:
        if mended := await self._house.audit(job_ids):
            log.error("jobs that stood in no index were put back, and those without data forgotten", jobs=mended)

    async def _audit_indexes(self) -> None:
        """Look for jobs without data among those that the indexes name, and count anew how many each customer runs."""
        if self._clock() < self._look_at_indexes_at:
            return
        self._look_at_indexes_at = self._clock() + _INDEXES_EVERY_S
        await self._mend(await self._house.named_jobs(_INDEXES_JOBS))
        if surplus := await self._house.recount():
            log.error("running jobs of customers were counted wrong", counted_too_many=surplus)

    async def _tell_unserved(self) -> bool:
        """Write into the events of jobs that nobody serves that they wait for nothing. Says whether it found some."""
        if self._clock() < self._look_for_unserved_at:
            return False
        told = await self._house.tell_unserved()
        self._look_for_unserved_at = self._clock() + (_UNSERVED_SOON_S if told else _UNSERVED_EVERY_S)
        return told > 0

    def clock_seen(self, redis_s: float) -> None:
        """Told what Redis's clock says. When it went ahead of ours, leases look ended that are not, and get time to be renewed.
        Told while another worker keeps house, too: the keeper's own key ends in such a jump."""
        now = self._clock()
        last, self._last = self._last, (redis_s, now)
        if last is None or (redis_s - last[0]) - (now - last[1]) < _CLOCK_JUMP_S:
            return
        self._no_rescue_before = now + self._lease_s
        log.warning(
            "redis's clock jumped: leases get time to be renewed", by_s=round(redis_s - last[0] - (now - last[1]))
        )
