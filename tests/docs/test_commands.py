"""Commands and variables that documents name exist."""

import re
import shlex
from pathlib import Path

import pytest

from .commands import commands_in, wrong_with, wrong_with_options
from .known import variables
from .pages import ALL_PAGES, page, page_names


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_names)
def test_commands_in_blocks_are_taken_by_the_command_line(path: Path) -> None:
    calls = [call for block in page(path).blocks for call in commands_in(block)]
    assert not [problem for call in calls if (problem := wrong_with(call))]


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_names)
def test_commands_in_the_text_exist(path: Path) -> None:
    calls = [code for code in page(path).inline_code if re.match(r"([A-Z_]+=\S* )*emp( |$)", code)]
    words = [shlex.split(call.partition("emp")[2]) for call in calls]
    assert not [problem for call in words if (problem := wrong_with_options(call))]


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_names)
def test_variables_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"\b(?:EMP|COMFYUI)_[A-Z_]*[A-Z]\b", page(path).text))
    assert not named - variables().keys()
