"""Signals to a process that runs workers: the first drains, the second stops at once, the third leaves everything."""

import math
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from emp_core.cli.failures import DONE, INTERRUPTED
from emp_core.cli.output import note

__all__ = ["Drainable", "Shutdown"]


_ONE_S = 0.3
"""Signals within this time of one are that one: a terminal sends it, and a parent passes it on, or sends its own."""


class Drainable(Protocol):
    """What a worker does when it is told to end."""

    def drain(self, reason: str = ...) -> None:
        """Let the jobs end within the grace time."""
        ...

    def stop(self) -> None:
        """Give the jobs back at once."""
        ...


class Shutdown:
    """Runs something until it ends or signals end it.

    Until there is somebody to look after there are no jobs to care for: the first signal ends everything.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._workers: list[Drainable] = []
        self._first: signal.Signals | None = None
        self._count = 0
        self._last_s = -math.inf

    def look_after(self, worker: Drainable) -> None:
        """From now on it is told of signals, and at once of one that came while others were looked after."""
        self._workers.append(worker)
        self._tell(worker)

    def _tell(self, worker: Drainable) -> None:
        if self._count > 1:
            worker.stop()
        elif self._first is not None:
            worker.drain(self._first.name)

    async def run(self, body: Callable[[], Awaitable[None]]) -> int:
        """Run ``body``; gives the exit code: 130 after Ctrl-C, 0 after any other end."""
        with anyio.open_signal_receiver(*_signals()) as received:
            async with anyio.create_task_group() as group:

                async def heed() -> None:
                    async for number in received:
                        self._heed(number, group.cancel_scope)

                group.start_soon(heed, name="emp signals")
                await body()
                group.cancel_scope.cancel()
        return INTERRUPTED if self._first is signal.SIGINT else DONE

    def _heed(self, number: signal.Signals, scope: anyio.CancelScope) -> None:
        self._first = self._first or number
        now_s = anyio.current_time()
        if now_s - self._last_s < _ONE_S:
            return
        self._last_s = now_s
        self._count += 1
        if not self._workers or self._count > 2:
            note(f"{number.name}: leaving.")
            scope.cancel()
            return
        if self._count == 1:
            note(f"{number.name}: jobs that run get up to {self._grace_s:g} s; once more stops them at once.")
        else:
            note(f"{number.name}: jobs that run are stopped and given back.")
        for worker in self._workers:
            self._tell(worker)


def _signals() -> list[signal.Signals]:
    heeded = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        heeded.append(signal.SIGHUP)
    return heeded
