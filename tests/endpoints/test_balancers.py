"""What each strategy promises."""

from collections import Counter

import pytest

from emp_core.endpoints.balancers import BALANCERS, Balancer, Fastest, LeastLoaded, Priority, RoundRobin
from emp_core.endpoints.endpoint import Endpoint, EndpointState, EndpointStatus


def at(name: str, queue: int = 0, *, priority: int = 1, slots: int = 1) -> EndpointState:
    endpoint = Endpoint(name, f"http://{name}", priority=priority, slots=slots)
    return EndpointState(endpoint, EndpointStatus.ONLINE, queue=queue)


def chosen(balancer: Balancer, *candidates: EndpointState, times: int = 1, kind: str = "") -> list[str]:
    return [balancer.choose(candidates, kind).name for _ in range(times)]


@pytest.mark.parametrize("name", BALANCERS)
def test_equals_take_turns(name: str) -> None:
    assert Counter(chosen(BALANCERS[name](), at("a"), at("b"), at("c"), times=9)) == {"a": 3, "b": 3, "c": 3}


def test_round_robin_minds_no_queue_and_skips_who_is_not_there() -> None:
    balancer = RoundRobin()
    assert chosen(balancer, at("a", 9), at("b"), at("c"), times=2) == ["a", "b"]
    assert chosen(balancer, at("a", 9), at("b")) == ["a"]
    assert chosen(balancer, at("a", 9), at("b"), at("c")) == ["c"]


def test_least_loaded_takes_the_shortest_queue() -> None:
    assert chosen(LeastLoaded(), at("a", 3), at("b", 1), at("c", 2), times=3) == ["b", "b", "b"]


def test_a_server_that_works_on_several_jobs_at_once_counts_for_as_many() -> None:
    assert chosen(LeastLoaded(), at("small", 1), at("big", 3, slots=4)) == ["big"]
    assert chosen(LeastLoaded(), at("small", 1), at("big", 8, slots=4)) == ["small"]


def test_priority_prefers_1_until_it_is_busy_then_2_then_the_least_loaded() -> None:
    balancer = Priority()
    assert chosen(balancer, at("old", priority=2), at("new", priority=1), times=2) == ["new", "new"]
    assert chosen(balancer, at("old", priority=2), at("new", 1, priority=1)) == ["old"]
    assert chosen(balancer, at("old", 1, priority=2), at("new", 2, priority=1)) == ["old"]
    assert chosen(balancer, at("old", 3, priority=2), at("new", 2, priority=1)) == ["new"]


def test_priority_takes_the_least_loaded_among_equally_preferred() -> None:
    assert chosen(Priority(), at("a", 2, slots=4), at("b", 1, slots=4), at("c", priority=2)) == ["b"]


def test_fastest_weighs_the_queue_with_the_time_that_this_kind_of_job_takes_there() -> None:
    balancer = Fastest()
    balancer.job_done("slow", "sdxl", 30.0)
    balancer.job_done("quick", "sdxl", 10.0)
    assert chosen(balancer, at("slow"), at("quick", 1), kind="sdxl") == ["quick"]
    assert chosen(balancer, at("slow"), at("quick", 3), kind="sdxl") == ["slow"]
    assert chosen(balancer, at("slow"), at("quick", 1), kind="another") == ["slow"]


def test_fastest_follows_a_server_that_becomes_slower() -> None:
    balancer = Fastest()
    balancer.job_done("a", "", 10.0)
    balancer.job_done("b", "", 20.0)
    for _ in range(10):
        balancer.job_done("a", "", 60.0)
    assert chosen(balancer, at("a"), at("b")) == ["b"]


def test_fastest_gives_a_server_that_it_does_not_know_its_chance() -> None:
    balancer = Fastest()
    balancer.job_done("known", "sdxl", 10.0)
    assert set(chosen(balancer, at("known"), at("new"), times=2, kind="sdxl")) == {"known", "new"}


def test_fastest_counts_rounds_where_several_jobs_run_at_once() -> None:
    balancer = Fastest()
    balancer.job_done("one", "", 10.0)
    balancer.job_done("many", "", 15.0)
    assert chosen(balancer, at("one", 1), at("many", 3, slots=4)) == ["many"]


def test_fastest_keeps_no_more_kinds_than_it_needs_and_nothing_of_who_is_gone() -> None:
    balancer = Fastest()
    for number in range(2000):
        balancer.job_done("a", f"kind {number}", 1.0)
    assert len(balancer._times["a"]) <= 512
    balancer.endpoint_gone("a")
    assert not balancer._times


@pytest.mark.parametrize("name", BALANCERS)
def test_one_that_comes_back_is_chosen_again(name: str) -> None:
    balancer = BALANCERS[name]()
    chosen(balancer, at("a"), at("b"), times=2)
    balancer.endpoint_gone("b")
    assert "b" in chosen(balancer, at("a"), at("b"), times=2)
