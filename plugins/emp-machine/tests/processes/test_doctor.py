"""`emp machine doctor` says what is wrong with a box, and what to do."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from emp_core.cli.main import run

from .box import Box

Doctor = Callable[..., dict[str, Any]]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Runs the command in this process, on a box with variables of its own; gives its exit code and what it prints."""
    root, own = logging.getLogger(), logging.getLogger("emp")
    before = root.handlers[:], root.level, own.level

    def call(*options: str, **more: str) -> str:
        for name in (name for name in list(os.environ) if not name.startswith("PYTEST")):
            monkeypatch.delenv(name)
        for name, value in Box(tmp_path, more).environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        code = run(["machine", "doctor", *options])
        return f"{code} {capsys.readouterr().out}"

    yield call
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])
    structlog.reset_defaults()


@pytest.fixture
def doctor(said: Callable[..., str]) -> Doctor:
    """The same with ``--json``: the document and the code."""

    def call(**more: str) -> dict[str, Any]:
        code, _, text = said("--json", **more).partition(" ")
        document: dict[str, Any] = json.loads(text)
        return {**document, "code": int(code)}

    return call


def checks(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in document["data"]}


def test_missing_programs_are_named_with_how_to_install_them(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(PATH=str(tmp_path), EMP_PROCESS_MANAGER="pm2")
    assert found["code"] == 2
    assert found["error"]["code"] == "unhealthy"
    shown = checks(found)
    assert shown["pm2"]["state"] == "fail"
    assert "npm install --global pm2" in shown["pm2"]["hint"]
    assert "EMP_PROCESS_MANAGER=supervisor" in shown["pm2"]["hint"]
    assert shown["git"]["state"] == "fail"
    assert "apt install git" in shown["git"]["hint"]
    assert shown["supervisor"]["state"] == "ok"
    assert "not installed" in shown["node"]["message"]


def test_without_pm2_supervisor_is_used_and_all_is_well(doctor: Doctor, tmp_path: Path) -> None:
    shown = checks(doctor(PATH=str(tmp_path)))
    assert shown["pm2"]["state"] == "ok"
    assert "supervisor is used" in shown["pm2"]["message"]


def test_a_redis_that_cannot_be_reached_is_told_by_the_exit_code(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(HUB_REDIS_URL="redis://:secret@127.0.0.1:1", EMP_REDIS_WAIT_S="0.1")
    assert found["code"] == 3
    assert checks(found)["redis"]["state"] == "fail"
    assert "secret" not in str(found)


def test_a_folder_that_cannot_be_written_is_named(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "machine"
    found = checks(doctor(EMP_MACHINE_ROOT=str(root)))
    assert found["folder"]["state"] == "fail"
    assert str(root) in found["folder"]["message"]
    assert "EMP_MACHINE_ROOT" in found["folder"]["hint"]


@pytest.mark.parametrize(
    ("more", "name", "word"),
    [
        ({"NUM_GPUS": "two"}, "settings", "NUM_GPUS"),
        ({"WORKERS": "nonsense"}, "plan", "nonsense"),
        ({"COMFYUI_INSTANCES_PER_GPU": "1", "WORKERS": ""}, "plan", "WORKERS"),
    ],
)
def test_what_stands_in_the_way_of_a_plan_is_a_failure(
    doctor: Doctor, more: dict[str, str], name: str, word: str
) -> None:
    found = doctor(**more)
    assert found["code"] == 2
    check = checks(found)[name]
    assert check["state"] == "fail"
    assert word in str(check)


def test_people_get_a_line_for_each_check(said: Callable[..., str]) -> None:
    code, *lines = said().replace(" ", "\n", 1).splitlines()
    assert code == "0"
    assert lines[0].startswith("ok    versions: emp-machine ")
    assert any(line.startswith("ok    driver: GPU_MODE=mock: 2 GPUs") for line in lines)
