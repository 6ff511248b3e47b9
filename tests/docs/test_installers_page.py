"""The page on installers names every installer, and every option that it knows."""

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from emp_comfyui.installer import CustomNode
from emp_machine.steps import FileEntry

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Registered
from emp_core.plugins.manager import load_plugins

from .known import in_mappings
from .pages import DOCS, page

PAGE = page(DOCS / "reference" / "installers.md")
INSTALLERS: Mapping[str, Registered] = load_plugins().installers


@pytest.mark.parametrize("name", sorted(INSTALLERS))
def test_every_option_of_an_installer_is_on_the_page_and_no_other(name: str, tmp_path: Path) -> None:
    make = load_plugins().load_target(INSTALLERS[name])
    installer = make(ServiceConfig("one", {}, {"installer_config": {"no_such_option": 1}}), tmp_path)
    with pytest.raises(ConfigError) as refusal:
        installer.steps()
    [told] = [problem for problem in refusal.value.problems if "no_such_option" in problem]
    known = told.partition("known are ")[2].split(", ")
    assert PAGE.section(name).table.keys() == set(known)


def test_variables_of_the_page_are_those_of_the_mappings() -> None:
    named = set(re.findall(r"`((?:COMFYUI|OLLAMA)_[A-Z_]+)`", PAGE.text))
    assert named <= in_mappings().keys()


@pytest.mark.parametrize(("heading", "kind"), [("A list of files", FileEntry), ("A list of custom nodes", CustomNode)])
def test_every_key_of_a_list_is_on_the_page(heading: str, kind: type) -> None:
    assert PAGE.section(heading).table.keys() == {field.name for field in attrs.fields(kind)}
