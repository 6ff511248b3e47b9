"""`Place`: a job's place at an endpoint, and what its end says of the endpoint."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
from attrs import field, frozen

from emp_core.connectors.breaker import BreakerPolicy, Permit
from emp_core.endpoints.balancers import Balancer
from emp_core.endpoints.endpoint import Endpoint, EndpointStatus
from emp_core.endpoints.member import Member, status_after
from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    EmpError,
    QuotaExhausted,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from emp_core.endpoints.failover import Setback

__all__ = ["Place", "PoolOptions"]

T = TypeVar("T")


@frozen
class PoolOptions:
    """How a pool looks after its endpoints. Durations are in seconds.

    Attributes:
        check_every_s: how often an endpoint is asked how it is.
        check_down_every_s: how often one is asked that did not answer.
        check_timeout_s: how long its answer may take.
        checks_at_once: how many are asked at a time.
        pause_s: how long one gets no jobs that refuses our credentials or has no quota left.
        busy_pause_s: how long one gets no jobs that says that it is busy, and not for how long.
        lost_after_s: how long an endpoint may give no answer before the jobs that run there count as lost; None: they find
            out by themselves.
        moves: how often a job that was lost in mid-run is begun again elsewhere.
        breaker: when jobs that fail in a row take an endpoint out.
    """

    check_every_s: float = 5.0
    check_down_every_s: float = 2.0
    check_timeout_s: float = 5.0
    checks_at_once: int = 8
    pause_s: float = 60.0
    busy_pause_s: float = 5.0
    lost_after_s: float | None = None
    moves: int = 1
    breaker: BreakerPolicy = field(factory=lambda: BreakerPolicy(failures=3))


class Place:
    """The right to run one job at one endpoint. Tell what came of it, once; only the first word counts.

    Attributes:
        setback: why the job came here from another endpoint; None: it did not.
        moved: how often it was begun again elsewhere by now.
    """

    def __init__(self, member: Member, permit: Permit, balancer: Balancer, options: PoolOptions, kind: str) -> None:
        self.endpoint: Endpoint = member.endpoint
        self.setback: Setback | None = None
        self.moved = 0
        self._member = member
        self._permit = permit
        self._balancer = balancer
        self._options = options
        self._kind = kind

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.name

    async def run(self, work: Callable[["Place"], Awaitable[T]]) -> T:
        """Do the work of the job here; stopped if the endpoint is lost meanwhile.

        Raises:
            ConnectionLost: it was; and what ``work`` raises.
        """
        with anyio.CancelScope() as scope:
            self._member.running.add(scope)
            try:
                return await work(self)
            finally:
                self._member.running.discard(scope)
        raise ConnectionLost(
            f"server {self.name} gave no answer for {self._options.lost_after_s or 0:g} s",
            hint="is it overloaded, or its network broken?",
            details={"reason": "server_gone"},
        )

    def succeeded(self, took_s: float | None = None) -> None:
        """The endpoint did its part.

        Args:
            took_s: how long the job ran there, in seconds, if that says something of other jobs of its kind.
        """
        self._permit.succeeded()
        if took_s is not None:
            self._balancer.job_done(self.name, self._kind, took_s)

    def failed(self, error: Exception) -> None:
        """The job failed. What that says of the endpoint is decided by the error's type."""
        match error:
            case ServiceBroken():
                self._member.breaker.trip(error.message)
                self._member.doubt(EndpointStatus.ERROR, error.message)
            case ServiceUnavailable():
                self._permit.failed(error.message)
                self._member.doubt(status_after(error), error.message)
            case ServiceBusy(retry_after_s=told):
                self._permit.succeeded()
                self._member.pause(self._options.busy_pause_s if told is None else told, error.message)
            case AuthenticationFailed() | QuotaExhausted():
                self._permit.succeeded()
                self._member.pause(self._options.pause_s, error.message)
            case EmpError():
                self._permit.succeeded()
            case _:
                self._permit.abandoned()
