"""Strategies that are wrong in one way each. ``breaks`` names the rule that has to say so."""

import time
from collections.abc import Sequence
from typing import ClassVar

from emp_core.endpoints.balancers import LeastLoaded, RoundRobin
from emp_core.endpoints.endpoint import EndpointState


class NoBalancer:
    breaks: ClassVar = "test_a_pool_can_make_one"

    def __init__(self) -> None:
        self._inner = RoundRobin()
        self.choose = self._inner.choose
        self.job_done = self._inner.job_done
        self.endpoint_gone = self._inner.endpoint_gone


class Faithful(LeastLoaded):
    """Chooses what it chose before, there or not, while that was idle."""

    breaks: ClassVar = "test_it_chooses_one_of_those_that_it_is_given_now"

    def __init__(self) -> None:
        super().__init__()
        self._idle: EndpointState | None = None

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        known = self._idle
        self._idle = super().choose(candidates, kind)
        if known is not None and len(candidates) == 3 and kind:
            return known
        return self._idle


class Choosy(LeastLoaded):
    """Gives no job to a server that has much to do."""

    breaks: ClassVar = "test_the_only_one_is_chosen"

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        if len(candidates) == 1 and candidates[0].queue == 50:
            raise LookupError("nobody is idle")
        return super().choose(candidates, kind)


class Sorting(LeastLoaded):
    breaks: ClassVar = "test_candidates_are_only_looked_at"

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        if isinstance(candidates, list) and len(candidates) != 2:
            candidates.sort(key=lambda one: (-one.queue, one.name))
        return super().choose(candidates, kind)


class ByTheClock(RoundRobin):
    breaks: ClassVar = "test_it_chooses_alike_when_told_the_same"

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        if len(candidates) in (7, 8):
            return candidates[time.perf_counter_ns() % len(candidates)]
        return super().choose(candidates, kind)


class OneForAll(RoundRobin):
    """All pools share their turns."""

    breaks: ClassVar = "test_it_chooses_alike_when_told_the_same"
    turns: ClassVar[list[int]] = []

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        if len(candidates) in (7, 8):
            self.turns.append(1)
            return candidates[len(self.turns) % 5]
        return super().choose(candidates, kind)


class FirstOnly(LeastLoaded):
    """Leaves out the last of many."""

    breaks: ClassVar = "test_servers_that_are_alike_all_get_jobs"

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        return super().choose(candidates[:4] if len(candidates) == 5 else candidates, kind)


class Conservative(LeastLoaded):
    """Gives jobs only to those who were there at first."""

    breaks: ClassVar = "test_a_server_that_joins_late_gets_jobs"

    def __init__(self) -> None:
        super().__init__()
        self._first: frozenset[str] = frozenset()

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        if len(candidates) == 2:
            self._first = self._first or frozenset(one.name for one in candidates)
        known = [one for one in candidates if one.name in self._first]
        return super().choose(known if len(candidates) == 3 and len(known) == 2 else candidates, kind)


class Unforgiving(LeastLoaded):
    """Never forgives a server that has gone."""

    breaks: ClassVar = "test_a_server_that_was_removed_may_come_back"

    def __init__(self) -> None:
        super().__init__()
        self._gone: dict[str, None] = {}

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        return super().choose([one for one in candidates if one.name not in self._gone] or candidates, kind)

    def endpoint_gone(self, endpoint: str) -> None:
        super().endpoint_gone(endpoint)
        self._gone[endpoint] = None
        if len(self._gone) > 100:
            self._gone.clear()


class KnowsThemAll(LeastLoaded):
    """Trips over who it does not know."""

    breaks: ClassVar = "test_odd_times_and_strangers_are_no_trouble"

    def job_done(self, endpoint: str, kind: str, took_s: float) -> None:
        if 1 / took_s < 0:
            raise ValueError(took_s)


class NeverForgets(LeastLoaded):
    breaks: ClassVar = "test_nothing_is_kept_of_servers_that_are_gone"

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, list[int]] = {}

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        for one in candidates:
            self._seen.setdefault(one.name, [0] * 20)
        return super().choose(candidates, kind)


class RemembersEveryKind(LeastLoaded):
    breaks: ClassVar = "test_many_kinds_of_jobs_take_little_memory"

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, dict[str, float]] = {}

    def job_done(self, endpoint: str, kind: str, took_s: float) -> None:
        self._times.setdefault(endpoint, {})[kind] = took_s

    def endpoint_gone(self, endpoint: str) -> None:
        super().endpoint_gone(endpoint)
        self._times.pop(endpoint, None)


class Thorough(LeastLoaded):
    """Compares each with each."""

    breaks: ClassVar = "test_a_choice_among_a_thousand_is_made_at_once"

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        beaten = [sum(other.load > one.load for other in candidates) for one in candidates]
        most = max(beaten)
        return super().choose([one for one, count in zip(candidates, beaten, strict=True) if count == most], kind)
