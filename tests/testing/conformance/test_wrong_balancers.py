"""Each rule of the balancer suite finds the strategy that breaks it, and lets all others pass."""

from pathlib import Path

import pytest

from emp_core.endpoints.balancers import Balancer
from emp_core.testing.conformance.balancer import BalancerConformance

from . import wrong_balancers
from .judging import judged, wrong_ones

WRONG = wrong_ones(wrong_balancers)

_WRONG = f"""
from emp_core.testing.conformance.balancer import BalancerConformance
from {wrong_balancers.__name__} import {{name}}

class TestIt(BalancerConformance):
    make_balancer = {{name}}
"""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_strategy_breaks_its_rule_and_no_other(tmp_path: Path, wrong: type[Balancer]) -> None:
    verdict = judged(tmp_path, _WRONG.format(name=wrong.__name__))
    assert verdict.failed == {wrong.breaks}  # type: ignore[attr-defined]  # each has it
    assert not verdict.skipped


def test_every_rule_has_a_strategy_that_breaks_it() -> None:
    rules = {name for name in dir(BalancerConformance) if name.startswith("test_")}
    assert rules == {wrong.breaks for wrong in WRONG}
