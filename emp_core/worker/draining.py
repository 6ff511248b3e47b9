"""Draining: a worker takes no more jobs, and those that run get time to end."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskGroup

from emp_core.worker.leases import Leases

__all__ = ["Drain"]

_STOP_S = 0.7
"""How long stopped attempts get to stop their service's work before their jobs are given to others."""


class Drain:
    """Begins once, whoever asks for it first.

    Args:
        grace_s: how long jobs may run on.

    Attributes:
        has_begun: whether no more jobs are taken.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self.has_begun = False
        self._begun = anyio.Event()
        self._cut_short = anyio.Event()
        self._before: anyio.CancelScope | None = None

    def begin(self) -> None:
        """Take no more jobs."""
        self.has_begun = True
        self._begun.set()
        if self._before is not None:
            self._before.cancel()

    @contextmanager
    def before(self) -> Iterator[None]:
        """What has sense only before it begins: it is cancelled then. Once."""
        with anyio.CancelScope() as self._before:
            if self.has_begun:
                self._before.cancel()
            yield

    def cut_short(self) -> None:
        """Give the jobs no more time."""
        self._cut_short.set()

    async def begun(self) -> None:
        """Wait until it begins."""
        await self._begun.wait()

    async def let_end(self, leases: Leases) -> None:
        """Wait until all jobs have ended, or for the grace time; then stop those that are left."""
        with anyio.move_on_after(self._grace_s):
            async with anyio.create_task_group() as race:
                race.start_soon(_then_cancel, leases.empty, race)
                race.start_soon(_then_cancel, self._cut_short.wait, race)
        leases.stop_all("drained")
        with anyio.move_on_after(_STOP_S):
            await leases.empty()


async def _then_cancel(wait: Callable[[], Awaitable[object]], group: TaskGroup) -> None:
    await wait()
    group.cancel_scope.cancel()
