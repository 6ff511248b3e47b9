"""Each rule of the installer suite finds the installer that breaks it, and lets all others pass."""

from pathlib import Path

import pytest

from emp_core.testing.conformance.installer import InstallerConformance

from . import wrong_installers
from .judging import judged, wrong_ones
from .wrong_installers import Notes

WRONG = wrong_ones(wrong_installers)

_WRONG = f"""
from {wrong_installers.__name__} import {{name}}, NotesConformance

class TestIt(NotesConformance):
    installer_class = {{name}}
"""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_installer_breaks_its_rules_and_no_others(tmp_path: Path, wrong: type[Notes]) -> None:
    verdict = judged(tmp_path, _WRONG.format(name=wrong.__name__))
    assert verdict.failed == wrong.breaks  # type: ignore[attr-defined]  # each has it
    assert not verdict.skipped


def test_every_rule_has_an_installer_that_breaks_it() -> None:
    rules = {name for name in dir(InstallerConformance) if name.startswith("test_")}
    assert rules == {rule for wrong in WRONG for rule in wrong.breaks}
