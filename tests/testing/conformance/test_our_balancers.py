"""The strategies of the core keep to what is asked of every strategy."""

from emp_core.endpoints.balancers import BALANCERS, Fastest, LeastLoaded, Priority, RoundRobin
from emp_core.testing.conformance.balancer import BalancerConformance


class TestRoundRobin(BalancerConformance):
    make_balancer = RoundRobin


class TestLeastLoaded(BalancerConformance):
    make_balancer = LeastLoaded


class TestPriority(BalancerConformance):
    make_balancer = Priority


class TestFastest(BalancerConformance):
    make_balancer = Fastest


def test_every_strategy_of_the_core_is_here() -> None:
    here = {suite.make_balancer for suite in (TestRoundRobin, TestLeastLoaded, TestPriority, TestFastest)}
    assert here == set(BALANCERS.values())
