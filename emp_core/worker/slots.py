"""Slots: how many jobs of one service run at once, and the tasks that run them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from emp_core.worker.leases import Held

__all__ = ["Slots"]

_RUN_AT_ONCE = 32


class Slots:
    """Runs jobs in up to ``capacity`` tasks, which are kept: a task per job would cost more than a small job does.

    Args:
        run: runs one job to its outcome, within a scope that stops it; raises nothing, and awaits nothing when it was stopped.
        on_free: told whenever a slot became free.
    """

    def __init__(
        self, capacity: int, run: Callable[[Held, anyio.CancelScope], Awaitable[None]], on_free: Callable[[], None]
    ) -> None:
        self.capacity = capacity
        self._run = run
        self._on_free = on_free
        self._busy = 0
        self._ready: deque[Held] = deque()
        self._resting: list[asyncio.Future[None]] = []
        self._waking = False
        self._emptied: anyio.Event | None = None

    @property
    def free(self) -> int:
        """Slots without a job."""
        return self.capacity - self._busy

    @property
    def _at_work(self) -> int:
        return self._busy - len(self._ready)

    async def emptied(self) -> None:
        """Wait until no job runs. For the end: what has not begun does not count."""
        while self._at_work > 0:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def put(self, held: Held, group: TaskGroup) -> None:
        """Run a job as soon as a task gets to it, which is at once."""
        self._busy += 1
        self._ready.append(held)
        if not self._waking:
            self._wake_one(group)

    def _wake_one(self, group: TaskGroup) -> None:
        # One at a time: the one that wakes wakes the next before it begins. So jobs that end without ever waiting are
        # run by one task, and jobs that wait have one each.
        self._waking = True
        if self._resting:
            woken = self._resting.pop()
            if not woken.done():  # else its task was cancelled, as all of them are then
                woken.set_result(None)
        else:
            group.start_soon(self._task, group, name="emp slot")

    async def _task(self, group: TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        self._waking = False
        ran = 0
        while True:
            # For many jobs, until it stops one of them: to make one and enter it takes as long as half of a small job.
            with anyio.CancelScope() as scope:
                while not scope.cancel_called:
                    if not self._ready:
                        self._resting.append(woken := loop.create_future())
                        await woken
                        self._waking = False
                        ran = 0
                        continue
                    ran += 1
                    if ran % _RUN_AT_ONCE == 0:
                        # Jobs that never wait would keep the next claim from being sent until all of them have run.
                        await checkpoint()
                        continue
                    held = self._ready.popleft()
                    if self._ready and not self._waking:
                        self._wake_one(group)
                    try:
                        await self._run(held, scope)
                    finally:
                        self._busy -= 1
                        if self._emptied is not None:
                            self._emptied.set()
                        self._on_free()
