"""The breaker of an endpoint: after failures in a row nothing is sent there for a while, then one job tries.

    closed ──N failures in a row──▶ open ──its time is over, one probe──▶ half open ──the probe succeeds──▶ closed
                                      ▲                                       │
                                      └─────────── the probe fails ───────────┘

No I/O, no tasks and no sleeping: the caller asks, and tells what came of it. For one event loop, not for threads.
"""

import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from attrs import field, frozen
from attrs.validators import ge

__all__ = ["Breaker", "BreakerChange", "BreakerPolicy", "BreakerState", "Permit"]


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """All is well."""
    OPEN = "open"
    """Nothing passes, until the open time is over and somebody asks."""
    HALF_OPEN = "half_open"
    """One probe may be on its way; its end decides."""


@frozen
class BreakerPolicy:
    """When a breaker opens, and for how long.

    Attributes:
        failures: failures in a row that open it.
        open_s: how long it stays open the first time, in seconds; doubles each time that the probe fails.
        open_max_s: the longest that it stays open, in seconds.
    """

    failures: int = field(default=5, validator=ge(1))
    open_s: float = field(default=5.0, validator=ge(0.0))
    open_max_s: float = field(default=120.0, validator=ge(0.0))

    def open_time_s(self, openings: int) -> float:
        """How long it stays open the ``openings``-th time in a row, from 1."""
        return min(self.open_max_s, self.open_s * 2.0 ** min(openings - 1, 64))


@frozen
class BreakerChange:
    """A change of a breaker's state.

    Attributes:
        reason: what opened it, and keeps it from being closed; None once it is closed.
        open_s: how long it will stay open, in seconds; 0 when it does not.
    """

    before: BreakerState
    after: BreakerState
    reason: str | None
    open_s: float


class Permit:
    """The right to send one job (or health check) through. Tell what came of it, once; only the first word counts.

    As a context manager it is abandoned at the end if nothing was told by then, so that a cancelled probe never keeps
    the only place.
    """

    def __init__(self, breaker: "Breaker", era: int) -> None:
        self._breaker = breaker
        self._era = era
        self._told = False

    def succeeded(self) -> None:
        """The service did its part, even if the job was refused as wrong."""
        if self._is_first_word():
            self._breaker._take_success(self._era)

    def failed(self, reason: str) -> None:
        """The service failed."""
        if self._is_first_word():
            self._breaker._take_failure(self._era, reason)

    def abandoned(self) -> None:
        """Nothing was learned: it was cancelled, or never sent. Counts neither way."""
        if self._is_first_word():
            self._breaker._take_nothing(self._era)

    def _is_first_word(self) -> bool:
        first, self._told = not self._told, True
        return first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._told:
            self.abandoned()


class Breaker:
    """The breaker of one endpoint.

    Args:
        policy: when it opens, and for how long.
        clock: seconds that never go back.
        on_change: told of every change of state, after it happened. Must return at once.
    """

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[BreakerChange], None] | None = None,
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self._clock = clock
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._reason: str | None = None
        self._failures = 0
        self._openings = 0
        self._open_until = 0.0
        self._probing = False
        self._era = 0

    @property
    def state(self) -> BreakerState:
        """Where it stands. It stays open, its time being over, until somebody asks for a permit."""
        return self._state

    @property
    def reason(self) -> str | None:
        """What opened it last; None while it is closed."""
        return self._reason

    @property
    def open_for_s(self) -> float:
        """How long it will let nothing pass, in seconds; 0 when it is not open."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._open_until - self._clock())

    @property
    def admits(self) -> bool:
        """Whether `admit` would give a permit now."""
        match self._state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return self._clock() >= self._open_until
            case BreakerState.HALF_OPEN:
                return not self._probing

    def room(self, free: int) -> int:
        """How many jobs may be sent to so many free places now: one at most while it wants a probe."""
        if self._state is BreakerState.CLOSED:
            return free
        return min(1, free) if self.admits else 0

    def room_at_all(self, places: int) -> int:
        """How many jobs may run at once in so many places, free or not: one at most until it is closed."""
        return places if self._state is BreakerState.CLOSED else min(1, places)

    def admit(self) -> Permit | None:
        """The right to send something, or None. While it is not closed, exactly one holds it at a time: the probe."""
        if self._state is not BreakerState.CLOSED:
            if not self.admits:
                return None
            if self._state is BreakerState.OPEN:
                self._change(BreakerState.HALF_OPEN)
            self._probing = True
        return Permit(self, self._era)

    def trip(self, reason: str) -> None:
        """Open it at once: the instance is known to be broken. While it is open already, only the reason is taken."""
        self._reason = reason
        if self._state is not BreakerState.OPEN:
            self._open(reason)

    def reset(self) -> None:
        """Close it at once: the endpoint is known to be well."""
        self._failures = 0
        if self._state is not BreakerState.CLOSED:
            self._close()

    def _take_success(self, era: int) -> None:
        if era != self._era:  # of a job that was sent before the state changed; it says nothing of now
            return
        if self._state is BreakerState.HALF_OPEN:
            self._close()
        self._failures = 0

    def _take_failure(self, era: int, reason: str) -> None:
        if era != self._era:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self.policy.failures:
            self._open(reason)

    def _take_nothing(self, era: int) -> None:
        if era == self._era:
            self._probing = False

    def _open(self, reason: str) -> None:
        self._openings += 1
        self._reason = reason
        self._open_until = self._clock() + self.policy.open_time_s(self._openings)
        self._change(BreakerState.OPEN)

    def _close(self) -> None:
        self._openings = 0
        self._reason = None
        self._change(BreakerState.CLOSED)

    def _change(self, after: BreakerState) -> None:
        before, self._state = self._state, after
        self._era += 1
        self._failures = 0
        self._probing = False
        if self._on_change is not None:
            self._on_change(BreakerChange(before, after, self._reason, self.open_for_s))
