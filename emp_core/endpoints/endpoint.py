"""`Endpoint`: one server of a service, and what is known of it now."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen
from attrs.validators import ge

from emp_core.connectors.breaker import BreakerState
from emp_core.errors import ConfigError

__all__ = ["Endpoint", "EndpointState", "EndpointStatus", "Reading"]

_LONGEST_NAME = 100


def _is_name(_endpoint: "Endpoint", _field: Any, name: str) -> None:
    if not (name and name == name.strip() and name.isprintable() and len(name) <= _LONGEST_NAME):
        raise ConfigError(f"{name!r} is no name of a server", hint=f"use up to {_LONGEST_NAME} printable characters")


@frozen
class Endpoint:
    """One server of a service.

    Attributes:
        name: what people call it; unique within a pool.
        url: its address. Credentials do not belong here: it stands in listings. Two endpoints may have the same one.
        priority: 1 is preferred, then 2, and so on.
        enabled: whether it gets jobs at all.
        slots: jobs that it works on at once; more of them wait there.
        labels: free texts for those who choose and for listings.
    """

    name: str = field(validator=_is_name)
    url: str
    priority: int = field(default=1, validator=ge(1), kw_only=True)
    enabled: bool = field(default=True, kw_only=True)
    slots: int = field(default=1, validator=ge(1), kw_only=True)
    labels: Mapping[str, str] = field(factory=dict, kw_only=True)


class EndpointStatus(StrEnum):
    """How an endpoint was found when it was asked last."""

    UNKNOWN = "unknown"
    """Nobody asked yet."""
    ONLINE = "online"
    OFFLINE = "offline"
    """No answer: nothing takes the connection, or it is silent."""
    ERROR = "error"
    """It answers, and not as it should; or it refuses us."""
    DISABLED = "disabled"
    """It is not to be used."""


@frozen
class Reading:
    """What an endpoint said of itself when it was asked.

    Attributes:
        running, pending: jobs there, whoever they belong to.
        memory_free_bytes, memory_total_bytes: of its GPU, or all its GPUs together.
        details: anything else worth showing, JSON-compatible.
    """

    running: int = 0
    pending: int = 0
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    details: Mapping[str, Any] = field(factory=dict)


_NOTHING_READ = Reading()


@frozen
class EndpointState:
    """An endpoint as it is known now. A value: it does not change any more.

    Attributes:
        reason: what is wrong, in words for the operator; None when nothing is.
        reading: what it said when it last answered.
        in_flight: jobs that this pool has there now.
        queue: jobs that run and wait there now: ours, and those of others as of the last reading.
        breaker: whether jobs failed there one after the other.
        paused_s: for how long it asked not to be asked, in seconds.
        checked_s: how long ago it was asked, in seconds; None: never.
    """

    endpoint: Endpoint
    status: EndpointStatus = EndpointStatus.UNKNOWN
    reason: str | None = None
    reading: Reading = _NOTHING_READ
    in_flight: int = 0
    queue: int = 0
    breaker: BreakerState = BreakerState.CLOSED
    paused_s: float = 0.0
    checked_s: float | None = None

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.name

    @property
    def load(self) -> float:
        """Its queue, in rounds: how often all its slots have to become free before a new job has run."""
        return self.queue / self.endpoint.slots

    @property
    def busy(self) -> bool:
        """Whether a new job would have to wait there."""
        return self.queue >= self.endpoint.slots

    def as_dict(self) -> dict[str, Any]:
        """As listings in JSON show it."""
        return {
            "name": self.name,
            "url": self.endpoint.url,
            "priority": self.endpoint.priority,
            "enabled": self.endpoint.enabled,
            "labels": dict(self.endpoint.labels),
            "status": str(self.status),
            "reason": self.reason,
            "running": self.reading.running,
            "pending": self.reading.pending,
            "in_flight": self.in_flight,
            "queue": self.queue,
            "memory_free_bytes": self.reading.memory_free_bytes,
            "memory_total_bytes": self.reading.memory_total_bytes,
            "breaker": str(self.breaker),
            "paused_s": round(self.paused_s, 1),
            "checked_s": None if self.checked_s is None else round(self.checked_s, 1),
            "details": dict(self.reading.details),
        }
