"""Each rule of the connector suite finds the connector that breaks it."""

from pathlib import Path

import pytest

from emp_core.testing.conformance.connector import ConnectorConformance

from . import shout, studio, wrong_connector_jobs, wrong_connector_life, wrong_connector_stops
from .judging import judged, wrong_ones

WRONG = wrong_ones(wrong_connector_life, wrong_connector_jobs, wrong_connector_stops)

_WRONG = f"""
from {{module}} import {{name}}
from {studio.__name__} import StudioConformance

class TestIt(StudioConformance):
    connector_class = {{name}}
"""
_ONE_PAYLOAD = f"""
from {shout.__name__} import ShoutConformance

class TestIt(ShoutConformance):
    payloads = ({{"text": "hello"}}, {{"text": "Hello"}})
"""
_ADDRESS_ALONE = f"""
import pytest
from emp_core.testing.fake_service import ServiceDriver
from {shout.__name__} import FakeShout, ShoutConformance

class TestIt(ShoutConformance):
    bad_payloads = ()

    @pytest.fixture
    async def service(self):
        async with FakeShout() as service:
            yield ServiceDriver(service.url)
"""
_SAME_OUTCOME = "test_the_same_payload_has_the_same_outcome_and_others_have_others"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_connector_breaks_its_rule(tmp_path: Path, wrong: type[studio.StudioConnector]) -> None:
    rule: str = wrong.breaks  # type: ignore[attr-defined]  # each has it
    verdict = judged(tmp_path, _WRONG.format(module=wrong.__module__, name=wrong.__name__), rule=rule)
    assert verdict.failed == {rule}
    assert not verdict.skipped


# The whole suite takes seconds for each: a few tell whether rules are blamed for one another.
@pytest.mark.parametrize("wrong", WRONG[::8], ids=lambda wrong: wrong.__name__)
def test_a_wrong_connector_breaks_no_other_rule(tmp_path: Path, wrong: type[studio.StudioConnector]) -> None:
    verdict = judged(tmp_path, _WRONG.format(module=wrong.__module__, name=wrong.__name__))
    assert verdict.failed == {wrong.breaks}  # type: ignore[attr-defined]  # each has it
    assert not verdict.skipped


def test_every_rule_has_a_connector_that_breaks_it() -> None:
    rules = {name for name in dir(ConnectorConformance) if name.startswith("test_")}
    assert rules - {_SAME_OUTCOME} == {wrong.breaks for wrong in WRONG}


def test_payloads_that_cannot_be_told_apart_are_told(tmp_path: Path) -> None:
    assert judged(tmp_path, _ONE_PAYLOAD).failed == {_SAME_OUTCOME}


def test_what_is_not_offered_is_skipped_with_what_to_give(tmp_path: Path) -> None:
    verdict = judged(tmp_path, _ADDRESS_ALONE)
    assert not verdict.failed
    assert {reason.partition(":")[0] for reason in verdict.reasons} == {
        "give a service that can hold its jobs and tells what it runs",
        "give a service that can hold its jobs, or long_payload",
        "give bad_payloads",
        "give secrets",
    }
