"""Strategies: which of several endpoints gets the next job.

A pool asks its balancer with the endpoints that could take the job, and tells it how long jobs took. It is asked from one
event loop, never twice at a time, and must answer at once.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from emp_core.endpoints.endpoint import EndpointState

__all__ = ["BALANCERS", "DEFAULT_BALANCER", "Balancer", "Fastest", "LeastLoaded", "Priority", "RoundRobin"]

DEFAULT_BALANCER = "least_loaded"
_NEWEST_PART = 0.3
_KINDS_KEPT = 512


class Balancer(ABC):
    """Chooses among endpoints. Made without arguments, one for each pool."""

    @abstractmethod
    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        """One of the candidates.

        Args:
            candidates: at least one, in the order of the configuration. All of them can take the job; their queues count
                the jobs that were sent to them a moment ago.
            kind: what kind of job it is, by the connector's account: jobs of one kind take about as long. May be empty.
        """

    def job_done(self, endpoint: str, kind: str, took_s: float) -> None:
        """Told when a job went well.

        Args:
            endpoint: the name of the endpoint that ran it.
            took_s: how long it ran there, in seconds, without the time that it waited.
        """

    def endpoint_gone(self, endpoint: str) -> None:
        """Told when an endpoint was removed, so that nothing is kept of it."""


class RoundRobin(Balancer):
    """Each in its turn, whatever else they have to do: for servers that are alike."""

    def __init__(self) -> None:
        self._turns = _Turns()

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:  # noqa: ARG002 - all alike
        """The one whose last turn is longest ago."""
        return self._turns.take(candidates)

    def endpoint_gone(self, endpoint: str) -> None:
        """Forget its turn."""
        self._turns.forget(endpoint)


class LeastLoaded(Balancer):
    """The shortest queue, running and waiting jobs together, by the slots of each. Equals take turns."""

    def __init__(self) -> None:
        self._turns = _Turns()

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:  # noqa: ARG002 - all alike
        """The one with the least to do."""
        least = min(one.load for one in candidates)
        return self._turns.take([one for one in candidates if one.load == least])

    def endpoint_gone(self, endpoint: str) -> None:
        """Forget its turn."""
        self._turns.forget(endpoint)


class Priority(Balancer):
    """The preferred ones first (priority 1, then 2 …) as long as they are not busy; when all are, the least loaded."""

    def __init__(self) -> None:
        self._least_loaded = LeastLoaded()

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        """The most preferred one that has a slot free; the least loaded of those that are equally preferred."""
        idle = [one for one in candidates if not one.busy]
        best = min((one.endpoint.priority for one in idle), default=None)
        return self._least_loaded.choose([one for one in idle if one.endpoint.priority == best] or candidates, kind)

    def endpoint_gone(self, endpoint: str) -> None:
        """Forget its turn."""
        self._least_loaded.endpoint_gone(endpoint)


class Fastest(Balancer):
    """The one that will probably be done first: its queue, times what jobs of this kind take there.

    Times are learned: a moving average for each endpoint and kind of job. An endpoint that has not run a kind yet counts as
    quick as the quickest that has, so that it gets its chance.
    """

    def __init__(self) -> None:
        self._turns = _Turns()
        self._times: dict[str, OrderedDict[str, float]] = {}

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        """The one with the earliest expected end."""
        learned = {one.name: self._times[one.name].get(kind) for one in candidates if one.name in self._times}
        quickest = min((time_s for time_s in learned.values() if time_s is not None), default=1.0)

        def done_in_s(one: EndpointState) -> float:
            time_s = learned.get(one.name)
            slots = one.endpoint.slots
            rounds = 1.0 + max(0, one.queue + 1 - slots) / slots
            return rounds * (quickest if time_s is None else time_s)

        earliest = min(map(done_in_s, candidates))
        return self._turns.take([one for one in candidates if done_in_s(one) == earliest])

    def job_done(self, endpoint: str, kind: str, took_s: float) -> None:
        """Learn."""
        times = self._times.setdefault(endpoint, OrderedDict())
        before = times.get(kind)
        times[kind] = took_s if before is None else before + _NEWEST_PART * (took_s - before)
        times.move_to_end(kind)
        if len(times) > _KINDS_KEPT:
            times.popitem(last=False)

    def endpoint_gone(self, endpoint: str) -> None:
        """Forget what was learned of it."""
        self._times.pop(endpoint, None)
        self._turns.forget(endpoint)


class _Turns:
    """Turns among endpoints that come and go: the one whose last turn is longest ago, else the first in order."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[str, int] = {}

    def take(self, candidates: Sequence[EndpointState]) -> EndpointState:
        chosen = min(candidates, key=lambda one: self._last.get(one.name, 0))
        self._count += 1
        self._last[chosen.name] = self._count
        return chosen

    def forget(self, endpoint: str) -> None:
        self._last.pop(endpoint, None)


BALANCERS: Mapping[str, Callable[[], Balancer]] = MappingProxyType(
    {"round_robin": RoundRobin, "least_loaded": LeastLoaded, "priority": Priority, "fastest": Fastest}
)
"""The strategies that are always there. Plugins bring others."""
