"""What holds for every command."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from emp_core.cli.main import COMMANDS, cli

from .conftest import Emp


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


EVERY = [pytest.param(path, command, id=" ".join(path)) for path, command in leaves(cli)]


@pytest.mark.parametrize(("path", "command"), EVERY)
def test_every_command_has_help_with_examples_and_takes_json(path: tuple[str, ...], command: click.Command, emp: Emp):
    ended = emp(*path, "--help")
    assert ended.code == 0
    assert "Examples:\n" in ended.out
    assert f"emp {' '.join(path)}" in ended.out.partition("Examples:")[2]
    assert "--json" in ended.out


def test_the_overview_names_every_command(emp: Emp):
    ended = emp("--help")
    assert ended.code == 0
    assert "\b" not in ended.out
    assert all(f"\n  {name} " in ended.out for name in COMMANDS)


def test_help_imports_neither_redis_nor_http_nor_rich():
    code = "import sys; from emp_core.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"redis", "httpx", "rich", "structlog", "asyncio", "cattrs"} & set(modules)


def test_an_unknown_command_is_wrong_usage_and_the_close_one_is_named(emp: Emp):
    ended = emp("sumbit")
    assert ended.code == 2
    assert "Did you mean 'submit'?" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "echo", "--priority", "101"],
        ["submit", "echo", "--start-at", "tomorrow"],
        ["submit", "echo", "--label", "x"],
        ["submit", "echo", "--delay", "1", "--start-at", "2030-01-01"],
        ["worker", "echo", "--workers", "echo"],
        ["jobs", "ls", "--state", "lost"],
        ["jobs", "wait"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_with_json_in_the_envelope(emp: Emp, arguments: list[str]):
    plain = emp(*arguments)
    assert plain.code == 2
    assert plain.err.splitlines()[-1].startswith("error: ")
    assert plain.out == ""
    enveloped = emp(*arguments, "--json")
    assert enveloped.code == 2
    assert enveloped.document["ok"] is False
    assert enveloped.error["code"] == "usage"


def test_settings_that_cannot_be_used_are_told_all_at_once(emp: Emp):
    ended = emp("jobs", "ls", EMP_LEASE_S="soon", EMP_MAX_ATTEMPTS="0", HUB_REDIS_URL="redis://:geheim@x")
    assert ended.code == 2
    assert "EMP_LEASE_S='soon'" in ended.err
    assert "EMP_MAX_ATTEMPTS='0'" in ended.err
    assert "Traceback" not in ended.err
    assert "geheim" not in ended.err


@pytest.mark.parametrize(
    "url", ["redis://w:GEHEIM#b@host", "w:GEHEIM@host", "redis://w:GEHEIM", "redis://w:GE/HEIM@host"]
)
@pytest.mark.parametrize("arguments", [["jobs", "ls"], ["jobs", "ls", "--json"], ["redis", "status"], ["doctor"]])
def test_no_password_in_an_address_that_cannot_be_used_is_shown(url: str, arguments: list[str], emp: Emp):
    ended = emp(*arguments, HUB_REDIS_URL=url, EMP_LOG_LEVEL="debug")
    assert "GEHEIM" not in ended.out + ended.err
    assert "HEIM" not in ended.out + ended.err


def test_a_setting_that_cannot_be_used_is_told_without_a_login_in_it(emp: Emp):
    ended = emp("jobs", "ls", EMP_SPOT_URL="ftp://w:GEHEIM@host")
    assert ended.code == 2
    assert "EMP_SPOT_URL='ftp://(hidden)@host'" in ended.err


def test_a_defect_is_told_without_the_secrets_in_its_text(emp: Emp, monkeypatch: pytest.MonkeyPatch):
    def defect(*_args: object) -> None:
        raise LookupError("https://w:GEHEIM@host/?token=GEHEIM")

    monkeypatch.setattr("emp_core.cli.jobs.prepared", defect)
    for arguments in (["jobs", "ls"], ["jobs", "ls", "--json"]):
        ended = emp(*arguments, EMP_LOG_LEVEL="debug")
        assert ended.code == 1
        assert "LookupError: https://(hidden)@host/?token=(hidden)" in ended.out + ended.err
        assert "GEHEIM" not in ended.out + ended.err


def test_the_traceback_is_for_those_who_log_at_debug(emp: Emp, tmp_path: Path):
    ended = emp("services", EMP_LOG_LEVEL="debug", EMP_SERVICE_MAPPING=str(tmp_path / "none.json"))
    assert ended.code == 2
    assert "Traceback (most recent call last)" in ended.err
    assert f"error: the service mapping {tmp_path / 'none.json'} does not exist" in ended.err


def test_a_defect_is_told_as_one_without_its_traceback(emp: Emp, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\x1b[31m no")

    monkeypatch.setattr("emp_core.cli.plugins.load_plugins", broken)
    ended = emp("plugins", "--json")
    assert ended.code == 1
    assert ended.error["code"] == "internal"
    assert "ZeroDivisionError" in ended.error["message"]
    assert "\x1b" not in emp("plugins").err


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m emp_core.cli --help | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.stdout == "0\n"
    assert ended.stderr == ""
