"""The reference pages and the code say the same."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest

from emp_core import errors
from emp_core.cli import failures
from emp_core.errors import AddressRefused, ConnectorError, EmpError, InputError, StorageError
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import Failed, Outcome, Release, Retry
from emp_core.jobs.requirements import Requirements
from emp_core.jobs.retry import Backoff, outcome_of
from emp_core.jobs.states import TRANSITIONS, JobState
from emp_core.queue import events
from emp_core.queue.keys import FIXED_KEYS, Keys
from emp_core.services.schema import ServiceEntry, ServiceType, WorkerType

from .commands import all_commands
from .known import DASH
from .pages import DOCS, page

REFERENCE = DOCS / "reference"
ERRORS = page(REFERENCE / "errors.md")
LUA = sorted(Path(inspect.getfile(events)).with_name("lua").rglob("*.lua"))
SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in LUA)


def all_errors() -> list[type[EmpError]]:
    return [getattr(errors, name) for name in errors.__all__]


def of_an_attempt() -> list[type[Exception]]:
    """What a connector raises, and what the worker does not make of it by its type."""
    trees = (ConnectorError, StorageError, InputError, AddressRefused)
    return [RuntimeError, *(one for one in all_errors() if issubclass(one, trees))]


def code_of(kind: type[Exception]) -> str:
    return kind.code if issubclass(kind, EmpError) else "unexpected"


def in_words(outcome: Outcome) -> str:
    match outcome:
        case Failed():
            return "fails"
        case Release(avoid_worker=avoid):
            return "released, not to this worker again" if avoid else "released"
        case Retry(delay_s=delay_s, avoid_worker=avoid):
            return f"retried{'' if delay_s else ' at once'}{', elsewhere if that is soon' if avoid else ''}"
    raise AssertionError(f"{outcome} is no failure")


@pytest.mark.parametrize("kind", of_an_attempt(), ids=code_of)
def test_what_an_error_does_to_the_job_is_told_as_it_is(kind: type[Exception]) -> None:
    shown = ERRORS.section("What an attempt's error does to the job").table
    outcome = outcome_of(kind("it failed"), attempt=1, max_attempts=3, backoff=Backoff())
    assert shown[code_of(kind)][1] == in_words(outcome)


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_its_code_type_and_exit_code_on_the_page(kind: type[EmpError]) -> None:
    [row] = [row for row in ERRORS.rows if row[1] == f"`{kind.__name__}`"]
    assert row[0] == f"`{kind.code}`"
    if kind not in of_an_attempt():
        assert row[-1] == f"`{kind.exit_code}`"


@pytest.mark.parametrize("exit_code", [2, 3])
def test_errors_of_attempts_that_end_a_command_otherwise_than_with_1_are_named(exit_code: int) -> None:
    found = re.search(rf"^- {exit_code}: (.*?)[;.]\n(?=- |\n)", ERRORS.text, re.MULTILINE | re.DOTALL)
    assert found is not None
    kinds = [kind for kind in of_an_attempt() if issubclass(kind, EmpError)]
    assert set(re.findall(r"`(\w+)`", found[1])) == {kind.code for kind in kinds if kind.exit_code == exit_code}


def test_every_code_that_the_scripts_and_commands_give_is_on_the_page() -> None:
    given = set(re.findall(r"\bfail\(id, facts, '(\w+)'", SCRIPTS))
    given |= set(re.findall(r'"code": "(\w+)"', inspect.getsource(failures)))
    given |= {kind.code for kind in vars(failures).values() if isinstance(kind, type) and issubclass(kind, EmpError)}
    assert given
    assert not given - ERRORS.table.keys()


def test_every_exit_code_is_on_the_page() -> None:
    shown = page(REFERENCE / "command-line.md").section("Exit codes").table
    codes = (failures.DONE, failures.FAILED, failures.USAGE, failures.UNREACHED, failures.INTERRUPTED)
    assert list(shown) == [str(code) for code in codes]


def test_every_event_is_on_the_page() -> None:
    known = set(re.findall(r"``(\w+)``", inspect.getdoc(events.JobEvent).partition("at:")[0]))  # type: ignore[union-attr]
    emitted = set(re.findall(r"emit\(\w+, '(\w+)'", SCRIPTS)) | {
        "retried",
        "released",
        "progress",
        "unserved",
        "warned",
    }
    shown = page(REFERENCE / "jobs.md").section("Events").table
    assert known == shown.keys()
    assert not emitted - known
    states = {name for name, (_, after) in shown.items() if after in {f"`{state}`" for state in JobState}}
    assert {"claimed", "completed", "failed", "cancelled", "rescued"} <= states


def test_every_field_of_a_job_is_on_the_page() -> None:
    jobs = page(REFERENCE / "jobs.md")
    submitted = {field.name for field in attrs.fields(JobSpec)}
    asked = {field.name for field in attrs.fields(Requirements)}
    added = {field.name for field in attrs.fields(Job)} - submitted
    assert jobs.section("Requirements").table.keys() == asked
    assert jobs.section("What is submitted").table.keys() == submitted | asked
    assert jobs.section("What the queue adds").table.keys() == added


def test_every_key_is_on_the_page() -> None:
    keys = page(REFERENCE / "redis-keys.md")
    assert keys.section("Fixed keys").table.keys() == set(FIXED_KEYS.values())
    shown = keys.section("Keys of one thing").table.keys() | keys.section("Channels").table.keys()
    assert not set(patterns()) - shown


def patterns() -> Iterator[str]:
    names = Keys()
    yield from (names.job("{job_id}"), names.payload("{job_id}"), names.job_events("{job_id}"))
    yield names.job_text("{job_id}")
    yield from (names.lane_workers("{lane}"), names.line("{lane}", "{customer}"), names.turns("{lane}"))
    yield from (names.parked("{customer}"), names.events_channel("{job_id}"), names.done_channel("{job_id}"))
    yield names.done_channel("{waiter}")
    for part in ("heartbeat", "capabilities", "lanes", "claim", "inbox"):
        yield names.worker("{worker}", part)
    yield names.machine("{machine_id}", "status")


def test_every_field_of_the_service_mapping_is_on_the_page() -> None:
    mapping = page(REFERENCE / "service-mapping.md")
    computed = {"extra", "routes"}
    of_workers = {field.name for field in attrs.fields(WorkerType)} - computed | {"job_service_required_map"}
    assert mapping.section("workers").table.keys() == of_workers
    assert mapping.section("services").table.keys() == {field.name for field in attrs.fields(ServiceEntry)} - computed
    types = set(re.findall(r"`(\w+)`", mapping.section("services").table["type"][0]))
    assert types == {one.value for one in ServiceType}


COMMANDS = list(all_commands())
SIMPLE = [(path, command) for path, command in COMMANDS if not isinstance(command, click.Group)]


def own_options(command: click.Command) -> set[str]:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return {name for option in options for name in option.opts} - {"--json", "--help", "-h"}


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_is_on_the_page_with_its_options(path: tuple[str, ...], command: click.Command) -> None:
    section = page(REFERENCE / "command-line.md").section(f"emp {' '.join(path)}")
    assert section.table.keys() == own_options(command)


@pytest.mark.parametrize(("path", "command"), SIMPLE, ids=[" ".join(path) for path, _ in SIMPLE])
def test_what_a_command_takes_is_on_the_page(path: tuple[str, ...], command: click.Command) -> None:
    name = f"emp {' '.join(path)}"
    _options, *takes = command.collect_usage_pieces(click.Context(command))
    section = page(REFERENCE / "command-line.md").section(name)
    assert not takes or " ".join((name, *takes)) in section.inline_code


def test_every_move_between_states_is_on_the_page() -> None:
    shown = {
        (script.strip("`"), came.strip("`"), goes.strip("`"))
        for came, goes, script, *_ in page(DOCS / "explanation" / "job-lifecycle.md").section("Moves").rows
    }
    moves = {(script, came or DASH, goes) for script, pairs in TRANSITIONS.items() for came, goes in pairs}
    assert shown == {(script, str(came), str(goes)) for script, came, goes in moves}
