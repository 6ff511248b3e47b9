"""Claiming: as often as there is something to have, and seldom otherwise."""

import asyncio
import os
from collections.abc import Callable, Sequence

import anyio
from anyio.lowlevel import checkpoint

from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY
from emp_core.queue.consumer import Claim, Consumer

__all__ = ["Claimer"]

log = get_logger("emp.worker")

_GATHER_S = 0.002
"""How long a free slot waits for more of them, so that one call fills them all."""
_ROOM_LOW = 8
_QUIET_S = 0.005
"""When there is room for so few jobs more it claims so long after the last one: while no outcome is on its way, which would
have to wait for the claim."""
_SHARE_S = 0.005
"""How long to leave waiting jobs to others that were just woken for them."""


class Claimer:
    """Fills free slots.

    Args:
        free: free slots, and the services that jobs may require to use them; without what is withdrawn.
        on_claim: told what a claim gave.
    """

    def __init__(
        self,
        consumer: Consumer,
        machine_id: str,
        poll_s: float,
        *,
        free: Callable[[], Sequence[tuple[int, Sequence[str]]]],
        capacity: Callable[[], int],
        on_claim: Callable[[Claim], None],
    ) -> None:
        self._consumer = consumer
        self._machine_id = machine_id
        self._poll_s = poll_s
        self._free = free
        self._capacity = capacity
        self._on_claim = on_claim
        self._woken = asyncio.Event()
        self._freed = asyncio.Event()
        self._able = 0
        self._handed = ""

    def wake(self) -> None:
        """There may be work."""
        self._woken.set()

    def handed(self, job_id: str, room: int) -> None:
        """A job was handed to this worker while it was idle, and is about to begin.

        Args:
            room: how many more may be. Then it counts as idle again when it has claimed.
        """
        self._handed = job_id
        loop = asyncio.get_running_loop()
        if room == _ROOM_LOW:
            loop.call_later(_QUIET_S, self._woken.set)
        elif room <= 0:
            # Later than the job, so that its outcome is sent first if it ends at once.
            loop.call_soon(self._woken.set)

    def slot_freed(self) -> None:
        """A slot became free."""
        self._freed.set()
        if len(self._free()) > self._able:
            # Of a service that had none: the queue has to know that we can be woken for it again.
            self._woken.set()

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            groups = await self._free_slots()
            self._woken.clear()
            self._able = len(groups)
            claim = await self._claim(groups, self._handed)
            if claim is None:
                continue
            self._on_claim(claim)
            await checkpoint()  # what was claimed begins first
            self._able = len(self._free())
            if not claim.registered:
                await anyio.sleep(0.2)
            elif len(claim.jobs) < sum(free for free, _ in groups):
                await self._rest(claim)

    async def _free_slots(self) -> Sequence[tuple[int, Sequence[str]]]:
        """Wait for a free slot, and a moment longer for half of them."""
        while True:
            groups = self._free()
            if not groups:
                self._freed.clear()
                await self._freed.wait()
                continue
            if 2 * sum(free for free, _ in groups) < self._capacity():
                with anyio.move_on_after(_GATHER_S):
                    while 2 * sum(free for free, _ in self._free()) < self._capacity():
                        self._freed.clear()
                        await self._freed.wait()
                groups = self._free()
            if groups:
                return groups

    async def _claim(self, groups: Sequence[tuple[int, Sequence[str]]], handed: str) -> Claim | None:
        token = os.urandom(16).hex()
        delay_s = 0.05
        while True:
            try:
                # The same token again gives the same jobs, should the reply have been lost.
                return await self._consumer.claim(token, groups, self._machine_id, handed=handed)
            except AWAY as error:
                log.warning("no claims: redis is away", error=str(error))
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)

    async def _rest(self, claim: Claim) -> None:
        """Nothing more to have now: wait to be woken, but never for ever."""
        pause_s = self._poll_s
        if claim.jobs and claim.left:
            pause_s = _SHARE_S
        elif claim.come_back_s is not None:
            pause_s = min(pause_s, claim.come_back_s)
        # Not a scope with a deadline: leaving it would take longer than all else between a wake-up and its claim.
        timer = asyncio.get_running_loop().call_later(pause_s, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
