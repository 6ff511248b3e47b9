"""`Member`: an endpoint in a pool, with all that changes about it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from emp_core.connectors.breaker import Breaker, BreakerChange, BreakerPolicy, BreakerState
from emp_core.endpoints.endpoint import Endpoint, EndpointState, EndpointStatus, Reading
from emp_core.errors import ConnectionLost, EmpError

if TYPE_CHECKING:
    import anyio

__all__ = ["EndpointEvent", "Member", "status_after"]


@frozen
class EndpointEvent:
    """Something that operators want to know of an endpoint.

    Attributes:
        kind: ``online``, ``offline``, ``error``, ``paused``, ``breaker_open``, ``breaker_closed``, ``added``, ``removed``,
            ``changed``, ``enabled``, ``disabled``, ``moved`` (a job went on elsewhere).
        endpoint: its name.
        message: what happened, in words.
        trouble: whether it is bad news.
    """

    kind: str
    endpoint: str
    message: str
    trouble: bool = False


class Member:
    """What a pool knows of one endpoint, and what it has there. Not for several threads.

    Args:
        tell: told of events. Must return at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: BreakerPolicy,
        *,
        tell: Callable[[EndpointEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.breaker = Breaker(breaker, clock=clock, on_change=self._breaker_changed)
        self.in_flight = 0
        self.running: set[anyio.CancelScope] = set()
        """The jobs that can be stopped when it is lost."""
        self.probing: anyio.Event | None = None
        """Set while somebody asks it; the others wait for this."""
        self._tell = tell
        self._clock = clock
        self._status = EndpointStatus.UNKNOWN
        self._reason: str | None = None
        self._reading = Reading()
        self._foreign = 0
        self._checked_at: float | None = None
        self._doubted = False
        self._down_since: float | None = None
        self._paused_until = 0.0
        self._paused_because = ""

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.name

    @property
    def status(self) -> EndpointStatus:
        """How it is."""
        return self._status if self.endpoint.enabled else EndpointStatus.DISABLED

    @property
    def paused_s(self) -> float:
        """For how long it asked not to be asked, in seconds."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def state(self) -> EndpointState:
        """All of it, as a value."""
        return EndpointState(
            self.endpoint,
            status=self.status,
            reason=self.trouble,
            reading=self._reading,
            in_flight=self.in_flight,
            queue=self._foreign + self.in_flight,
            breaker=self.breaker.state,
            paused_s=self.paused_s,
            checked_s=None if self._checked_at is None else self._clock() - self._checked_at,
        )

    @property
    def trouble(self) -> str | None:
        """Why it gets no jobs now; None: it may have one."""
        if not self.endpoint.enabled:
            return "it is disabled"
        if self._status in (EndpointStatus.OFFLINE, EndpointStatus.ERROR):
            return self._reason or str(self._status)
        if self.paused_s > 0:
            return f"{self._paused_because} (for {self.paused_s:.0f} s more)"
        if not self.breaker.admits:
            return f"its jobs failed: {self.breaker.reason or 'a probe is on its way'}"
        return None

    # -- what is found out ---------------------------------------------------------------------------------------

    def due_in_s(self, every_s: float, when_down_s: float) -> float:
        """Seconds until it is to be asked again."""
        if self._checked_at is None or self._doubted:
            return 0.0
        well = self._status is EndpointStatus.ONLINE
        return max(0.0, self._checked_at + (every_s if well else when_down_s) - self._clock())

    def answered(self, reading: Reading, own_before: int) -> None:
        """It said how it is.

        Args:
            own_before: jobs of ours that were there when it was asked: its count holds them, too.
        """
        self._reading = reading
        self._foreign = max(0, reading.running + reading.pending - max(own_before, self.in_flight))
        self._down_since = None
        self._found(EndpointStatus.ONLINE, None)

    def failed_to_answer(self, status: EndpointStatus, reason: str) -> None:
        """It did not say how it is, or said nonsense. What it has to do is not known."""
        self._foreign = 0
        if status is EndpointStatus.OFFLINE:
            self._down_since = self._clock() if self._down_since is None else self._down_since
        self._found(status, reason)

    def stop_jobs_if_lost(self, lost_after_s: float) -> None:
        """Stop the jobs there if it gave no answer for so long."""
        if self._down_since is not None and self._clock() - self._down_since >= lost_after_s:
            for scope in self.running:
                scope.cancel()

    def doubt(self, status: EndpointStatus, reason: str) -> None:
        """A job failed there: it gets no other until it was asked."""
        self._found(status, reason)
        self._doubted = True

    def pause(self, seconds: float, reason: str) -> None:
        """It does not want to be asked for a while."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._paused_because = reason
        self._tell(EndpointEvent("paused", self.name, f"gets no jobs for {seconds:.0f} s: {reason}", trouble=True))

    def forget(self) -> None:
        """What was known may not hold any more: it has another address, or was just enabled."""
        self._status, self._reason, self._checked_at = EndpointStatus.UNKNOWN, None, None
        self._reading, self._foreign, self._paused_until, self._down_since = Reading(), 0, 0.0, None
        self.breaker.reset()

    def _found(self, status: EndpointStatus, reason: str | None) -> None:
        before, self._status = self._status, status
        self._checked_at, self._doubted = self._clock(), False
        self._reason = reason
        if status is not before and not (before is EndpointStatus.UNKNOWN and status is EndpointStatus.ONLINE):
            said = f"is {status}" + (f": {reason}" if reason else " again")
            self._tell(EndpointEvent(str(status), self.name, said, trouble=status is not EndpointStatus.ONLINE))

    def _breaker_changed(self, change: BreakerChange) -> None:
        match change.after:
            case BreakerState.OPEN:
                said = f"gets no jobs for {change.open_s:.0f} s: they fail there: {change.reason}"
                self._tell(EndpointEvent("breaker_open", self.name, said, trouble=True))
            case BreakerState.CLOSED:
                self._tell(EndpointEvent("breaker_closed", self.name, "gets jobs again"))


def status_after(error: EmpError) -> EndpointStatus:
    """Whether an endpoint that gave this error is not there, or there and not well."""
    no_answer = isinstance(error, ConnectionLost) or "cause" in error.details
    return EndpointStatus.OFFLINE if no_answer else EndpointStatus.ERROR
