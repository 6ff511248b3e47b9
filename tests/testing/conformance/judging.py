"""Running a suite on something that is wrong, and seeing which of its rules say so."""

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import frozen

__all__ = ["Verdict", "judged", "wrong_ones"]

_numbers = itertools.count()


@frozen
class Verdict:
    """What a suite said.

    Attributes:
        failed, skipped: the names of rules, without the parameters.
        reasons: why rules were skipped.
    """

    failed: frozenset[str]
    skipped: frozenset[str]
    reasons: frozenset[str]


def wrong_ones(*modules: ModuleType) -> tuple[type[Any], ...]:
    """The classes of these modules that say which rule they break, in their order."""
    return tuple(
        one for module in modules for one in vars(module).values() if isinstance(one, type) and "breaks" in vars(one)
    )


def judged(folder: Path, program: str, *, rule: str = "") -> Verdict:
    """Run a module of tests in a pytest without configuration, within this process: it sees the modules that we see.

    Args:
        rule: run this rule alone; empty: all of them.
    """
    (folder / "pytest.ini").write_text("[pytest]\n")
    module = folder / f"test_{next(_numbers)}.py"  # a module of its own each time
    module.write_text(program)
    seen = _Reports()
    where = [str(module), f"--rootdir={folder}", f"--basetemp={folder / 'temp'}", "--import-mode=importlib"]
    without = [
        option for name in ("cacheprovider", "faulthandler", "randomly", "xdist") for option in ("-p", f"no:{name}")
    ]
    chosen = ["-k", rule] if rule else []
    pytest.main([*where, *without, *chosen, "--tb=no", "-s", "-q", "-W", "ignore"], plugins=[seen])
    assert seen.reports, "nothing was run"
    for one in seen.reports:
        if one.failed:
            print(f"{one.nodeid}: {one.longreprtext[-1000:]}")  # for whoever wonders why
    skipped = [one for one in seen.reports if one.skipped]
    reasons = {str(one.longrepr[2]).removeprefix("Skipped: ") for one in skipped if isinstance(one.longrepr, tuple)}
    return Verdict(
        frozenset(_rule(one) for one in seen.reports if one.failed),
        frozenset(map(_rule, skipped)),
        frozenset(reasons),
    )


class _Reports:
    """A pytest plugin that keeps what was reported."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        assert report.passed, report.longrepr


def _rule(report: pytest.TestReport) -> str:
    return report.nodeid.partition("[")[0].rpartition("::")[2]
