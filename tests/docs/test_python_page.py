"""The page on Python names every method of the queue and the worker, and every fixture."""

import inspect
import re

import pytest

from emp_core import EventReader, JobQueue, SyncJobQueue, Worker
from emp_core.testing import pytest_plugin

from .pages import DOCS, page

PAGE = page(DOCS / "reference" / "python.md")


def methods(kind: type) -> dict[str, tuple[str, ...]]:
    """The public methods, each with its parameters."""
    members = inspect.getmembers(kind, lambda one: inspect.isfunction(one) or inspect.ismethod(one))
    return {
        name: tuple(one for one in inspect.signature(method).parameters if one != "self")
        for name, method in members
        if not name.startswith("_")
    }


def shown(heading: str) -> dict[str, list[str]]:
    """What the rows show as calls: the name, and the parameters; ``…`` stands for more of them."""
    calls = [re.fullmatch(r"(?:\w+\.)?(\w+)\((.*)\)", name) for name in PAGE.section(heading).table]
    return {call[1]: [one for one in call[2].split(", ") if one] for call in calls if call}


@pytest.mark.parametrize(("heading", "kind"), [("JobQueue", JobQueue), ("Worker", Worker), ("All events", EventReader)])
def test_every_method_is_on_the_page_with_its_parameters(heading: str, kind: type) -> None:
    told = shown(heading)
    known = methods(kind)
    assert told.keys() == known.keys() - {"connect"}
    for name, parameters in told.items():
        said = [one for one in parameters if one != "…"]
        assert tuple(said) == known[name][: len(said)]
        assert ("…" in parameters) == (len(said) < len(known[name]))


def test_the_queue_for_programs_that_do_not_await_lacks_what_the_page_says() -> None:
    assert methods(JobQueue).keys() - methods(SyncJobQueue).keys() == {"event_reader"}
    assert methods(SyncJobQueue).items() <= methods(JobQueue).items()


def test_every_fixture_is_on_the_page() -> None:
    assert PAGE.section("For tests").table.keys() == set(pytest_plugin.__all__)
