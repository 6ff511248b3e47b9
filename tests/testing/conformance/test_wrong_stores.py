"""Each rule of the store suite finds the store that breaks it."""

from pathlib import Path

import pytest

from emp_core.testing.conformance.store import StoreConformance

from . import kept, wrong_store_care, wrong_store_files, wrong_store_telling
from .judging import judged, wrong_ones
from .kept import KeptStore

WRONG = wrong_ones(wrong_store_files, wrong_store_telling, wrong_store_care)

_WRONG = f"""
from {{module}} import {{name}}
from {kept.__name__} import KeptStoreConformance

class TestIt(KeptStoreConformance):
    store_class = {{name}}
"""
_FOLDER_ALONE = """
import pytest
from emp_core.storage.local import LocalStore
from emp_core.testing.conformance.store import StoreConformance

class TestIt(StoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path):
        return lambda: LocalStore(tmp_path)
"""


def test_a_store_that_is_right_breaks_no_rule(tmp_path: Path) -> None:
    verdict = judged(tmp_path, _WRONG.format(module=kept.__name__, name=KeptStore.__name__))
    assert not verdict.failed
    assert not verdict.skipped


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_store_breaks_its_rule(tmp_path: Path, wrong: type[KeptStore]) -> None:
    rule: str = wrong.breaks  # type: ignore[attr-defined]  # each has it
    verdict = judged(tmp_path, _WRONG.format(module=wrong.__module__, name=wrong.__name__), rule=rule)
    assert verdict.failed == {rule}
    assert not verdict.skipped


# The whole suite takes seconds for each: a few tell whether rules are blamed for one another.
@pytest.mark.parametrize("wrong", WRONG[::8], ids=lambda wrong: wrong.__name__)
def test_a_wrong_store_breaks_no_other_rule(tmp_path: Path, wrong: type[KeptStore]) -> None:
    verdict = judged(tmp_path, _WRONG.format(module=wrong.__module__, name=wrong.__name__))
    assert verdict.failed == {wrong.breaks}  # type: ignore[attr-defined]  # each has it
    assert not verdict.skipped


def test_every_rule_has_a_store_that_breaks_it() -> None:
    rules = {name for name in dir(StoreConformance) if name.startswith("test_")}
    assert rules == {wrong.breaks for wrong in WRONG}


def test_what_is_not_given_is_skipped_with_what_to_give(tmp_path: Path) -> None:
    verdict = judged(tmp_path, _FOLDER_ALONE)
    assert not verdict.failed
    assert {reason.partition(":")[0] for reason in verdict.reasons} == {
        "give the fixture make_broken_store",
        "give the fixture list_place",
        "give secrets",
    }
