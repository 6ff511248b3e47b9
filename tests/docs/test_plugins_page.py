"""The page about plugins names every hook and every method of what plugins bring, as they are called."""

import inspect
import re
from types import ModuleType

import pytest

from emp_core.endpoints.balancers import Balancer
from emp_core.plugins import hookspecs
from emp_core.services.installer import Installer, StepContext
from emp_core.storage.interface import ArtifactStore

from .pages import DOCS, page

PAGE = page(DOCS / "reference" / "plugins.md")


def hooks(module: ModuleType) -> dict[str, list[str]]:
    """The hooks, each with its parameters."""
    found = {name: one for name, one in vars(module).items() if name.startswith("emp_")}
    return {name: list(inspect.signature(one).parameters) for name, one in found.items()}


def shown(rows: list[str]) -> dict[str, list[str]]:
    """What rows show as calls: the name, and the parameters."""
    calls = [re.fullmatch(r"(\w+)\((.*)\)", row) for row in rows]
    assert all(calls)
    return {call[1]: [one for one in call[2].split(", ") if one] for call in calls if call}


def test_every_hook_is_on_the_page_with_its_parameters_and_no_other() -> None:
    assert shown(list(PAGE.section("Hooks").table)) == hooks(hookspecs)


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [("Stores", [ArtifactStore]), ("Installers", [Installer, StepContext]), ("Strategies", [Balancer])],
)
def test_every_method_of_what_plugins_bring_is_on_the_page(heading: str, kinds: list[type]) -> None:
    methods = {
        name: [one for one in inspect.signature(method).parameters if one != "self"]
        for kind in kinds
        for name, method in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(method)
    }
    told = shown(list(PAGE.section(heading).table))
    assert told.keys() == methods.keys()
    for name, parameters in told.items():
        told_ones = [one for one in parameters if one != "…"]
        assert told_ones == methods[name][: len(told_ones)]
        assert ("…" in parameters) == (len(told_ones) < len(methods[name]))
