"""`BalancerConformance`: what every strategy for choosing among servers keeps to."""

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import ClassVar

import pytest

from emp_core.endpoints.balancers import Balancer
from emp_core.endpoints.endpoint import Endpoint, EndpointState, EndpointStatus

__all__ = ["BalancerConformance"]

_CHOICES = 400
_MANY = 1000
_CHOICE_S = 0.02
_GONE = 5000
_KINDS = 20_000
_KEPT_BYTES = 1_500_000
_KINDS_OF_JOBS = ("", "portrait", "video", "a kind with ünusual words")


class BalancerConformance:
    """The rules of `Balancer`. A subclass names its strategy::

        class TestNearest(BalancerConformance):
            make_balancer = Nearest

    Attributes:
        make_balancer: the strategy; called without arguments, as a pool does.
        deterministic: whether it chooses alike whenever it is told the same.
        shares: whether servers that are alike in all that is known of them all get jobs.
    """

    make_balancer: ClassVar[Callable[..., Balancer]]
    deterministic: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    def test_a_pool_can_make_one(self) -> None:
        assert isinstance(self._made(), Balancer), "a strategy is a subclass of emp_core.endpoints.balancers.Balancer"

    def test_it_chooses_one_of_those_that_it_is_given_now(self) -> None:
        balancer = self._made()
        for candidates, kind in history():
            chosen = balancer.choose(candidates, kind)
            assert any(chosen is one for one in candidates), (
                f"{getattr(chosen, 'name', chosen)!r} was chosen and is none of the candidates: only they take jobs now"
            )
            balancer.job_done(chosen.name, kind, 1.0)

    def test_the_only_one_is_chosen(self) -> None:
        balancer = self._made()
        for name in ("a", "b", "a", "c"):
            only = server(name, queue=50, priority=9)
            assert balancer.choose([only], "") is only, "a server that is the only one does not get the job"

    def test_candidates_are_only_looked_at(self) -> None:
        balancer = self._made()
        for candidates, kind in history():
            given = list(candidates)
            balancer.choose(given, kind)
            assert given == list(candidates), "the list of candidates was changed"

    def test_it_chooses_alike_when_told_the_same(self) -> None:
        if not self.deterministic:
            pytest.skip("the strategy is declared as not deterministic")
        first, second = choices(self._made()), choices(self._made())
        assert first == second, (
            "two balancers that were told the same chose otherwise: by chance, a clock, or each other"
        )

    def test_servers_that_are_alike_all_get_jobs(self) -> None:
        if not self.shares:
            pytest.skip("the strategy is declared as not sharing jobs among servers that are alike")
        names = [f"server {number}" for number in range(5)]
        counts = Counter(served(self._made(), names, jobs=100))
        assert not [name for name in names if not counts[name]], f"of servers that are alike some get no jobs: {counts}"

    def test_a_server_that_joins_late_gets_jobs(self) -> None:
        if not self.shares:
            pytest.skip("the strategy is declared as not sharing jobs among servers that are alike")
        balancer = self._made()
        list(served(balancer, ["a", "b"], jobs=60))
        assert "late" in set(served(balancer, ["a", "b", "late"], jobs=60)), "a server that joined late gets no jobs"

    def test_a_server_that_was_removed_may_come_back(self) -> None:
        balancer = self._made()
        list(served(balancer, ["a", "b"], jobs=20))
        for _ in range(2):
            balancer.endpoint_gone("b")
        balancer.endpoint_gone("never there")
        assert set(served(balancer, ["a"], jobs=5)) == {"a"}
        back = set(served(balancer, ["a", "b"], jobs=60))
        assert not self.shares or back == {"a", "b"}, "a server that came back gets no jobs"

    def test_odd_times_and_strangers_are_no_trouble(self) -> None:
        balancer = self._made()
        balancer.job_done("stranger", "kind", 1.0)
        for took_s in (0.0, 1e-9, 1e9, 0.0):
            for name in ("a", "b"):
                balancer.job_done(name, "kind", took_s)
            candidates = [server("a"), server("b", queue=10**6), server("c", slots=10**6)]
            assert balancer.choose(candidates, "kind") in candidates, f"nobody was chosen after a job of {took_s:g} s"

    def test_nothing_is_kept_of_servers_that_are_gone(self) -> None:
        balancer = self._made()

        def come_and_go() -> None:
            for number in range(_GONE):
                one = server(f"spot instance {number}")
                balancer.choose([one], "kind")
                balancer.job_done(one.name, "kind", 1.0)
                balancer.endpoint_gone(one.name)

        kept = kept_by(come_and_go)
        assert kept < _KEPT_BYTES / 4, f"{kept:,} bytes are kept of {_GONE:,} servers that are gone"

    def test_many_kinds_of_jobs_take_little_memory(self) -> None:
        balancer = self._made()

        def many_kinds() -> None:
            for number in range(_KINDS):
                kind = f"kind of job {number}"
                balancer.choose([server("a")], kind)
                balancer.job_done("a", kind, 1.0)

        kept = kept_by(many_kinds)
        assert kept < _KEPT_BYTES, f"{kept:,} bytes are kept of {_KINDS:,} kinds of jobs"

    def test_a_choice_among_a_thousand_is_made_at_once(self) -> None:
        balancer = self._made()
        candidates = [server(f"server {number}", queue=number % 7, priority=1 + number % 3) for number in range(_MANY)]
        took = []
        for _ in range(20):
            began = time.thread_time()
            chosen = balancer.choose(candidates, "kind")
            took.append(time.thread_time() - began)
            balancer.job_done(chosen.name, "kind", 1.0)
        assert median(took) < _CHOICE_S, f"a choice among {_MANY:,} servers takes {median(took):.3f} s of computing"

    def _made(self) -> Balancer:
        return type(self).make_balancer()


def server(name: str, *, queue: int = 0, priority: int = 1, slots: int = 1) -> EndpointState:
    """A server that takes jobs."""
    endpoint = Endpoint(name, f"http://{name.replace(' ', '-')}", priority=priority, slots=slots)
    return EndpointState(endpoint, EndpointStatus.ONLINE, queue=queue)


def history() -> Iterator[tuple[Sequence[EndpointState], str]]:
    """Servers that come and go, and what is asked of them; the same every time."""
    chance = random.Random(4)
    for _ in range(_CHOICES):
        names = chance.sample("abcdefgh", chance.randint(1, 8))
        candidates = tuple(
            server(name, queue=chance.randint(0, 5), priority=chance.randint(1, 3), slots=chance.randint(1, 4))
            for name in sorted(names)
        )
        yield candidates, chance.choice(_KINDS_OF_JOBS)


def choices(balancer: Balancer) -> list[str]:
    """What is chosen over that history."""
    chosen = []
    for number, (candidates, kind) in enumerate(history()):
        name = balancer.choose(candidates, kind).name
        balancer.job_done(name, kind, 1.0 + number % 5)
        chosen.append(name)
    return chosen


def served(balancer: Balancer, names: Sequence[str], *, jobs: int) -> Iterator[str]:
    """Who gets the jobs, among servers that are alike and as quick as each other."""
    queues: Counter[str] = Counter()
    for number in range(jobs):
        chosen = balancer.choose([server(name, queue=queues[name]) for name in names], "kind").name
        queues[chosen] += 1
        yield chosen
        if number % 2:  # each has two to do before one is done
            done = max(names, key=lambda name: queues[name])
            queues[done] -= 1
            balancer.job_done(done, "kind", 1.0)


def kept_by(action: Callable[[], None]) -> int:
    """Bytes of memory that are still taken after something was done."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
