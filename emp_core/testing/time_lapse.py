"""Time that passes when a test says so: an event loop whose clock can be put forward."""

import asyncio
from collections.abc import Callable
from typing import Self

import anyio

__all__ = ["TimeLapse"]

_STEP_S = 0.5
_REAL_S = 0.001


class TimeLapse:
    """Lets the time of an event loop pass faster. Everything on it that waits for a time wakes as if it had waited.

    The loop keeps this clock, and what it gained: time on a loop never goes back.
    """

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self._gained_s = 0.0

    @classmethod
    def here(cls) -> Self:
        """The time lapse of the running event loop."""
        loop = asyncio.get_running_loop()
        before = getattr(loop.time, "__self__", None)
        if isinstance(before, cls):
            return before
        made = cls(loop.time)
        loop.time = made.now  # type: ignore[method-assign]
        return made

    def now(self) -> float:
        """The loop's time."""
        return self._real() + self._gained_s

    async def until(self, done: Callable[[], bool], *, most_s: float) -> float:
        """Let time pass until ``done`` or for ``most_s`` seconds; gives how many passed.

        Between two steps there is a moment of real time, for what comes over sockets.
        """
        passed_s = 0.0
        while not done() and passed_s < most_s:
            await anyio.sleep(_REAL_S)
            self._gained_s += _STEP_S
            passed_s += _STEP_S
            await anyio.sleep(_REAL_S)
        return passed_s
