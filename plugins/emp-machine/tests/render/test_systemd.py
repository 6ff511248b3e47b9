"""Units, as systemd itself reads them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from emp_machine.envfile import read_env_file
from emp_machine.render.files import write_files
from emp_machine.render.systemd import TARGET, render

from .conftest import ODD, MakePlan


@pytest.fixture
def verify() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")


def analyzed(folder: Path) -> tuple[int, str]:
    """What systemd has against the units of a folder."""
    units = sorted(str(path) for path in folder.iterdir() if path.suffix in (".service", ".target"))
    ran = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    return ran.returncode, ran.stderr + ran.stdout


@pytest.mark.usefixtures("verify")
def test_systemd_has_nothing_against_the_units(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(ODD, arguments=("100%", "$HOME", 'a "b" c', "back\\slash", "line\nbreak", ";", "-x"))
    write_files(render(plan, tmp_path / "out"), tmp_path / "out")
    assert analyzed(tmp_path / "out") == (0, "")


@pytest.mark.usefixtures("verify")
def test_systemd_would_tell_of_a_mistake(make_plan: MakePlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_files(render(make_plan(), out), out)
    unit = out / "emp-tool-gpu0.service"
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=sometimes"))
    assert "Failed to parse service restart specifier" in analyzed(out)[1]


def test_workers_start_after_what_they_need_and_all_belong_to_one_target(make_plan: MakePlan, tmp_path: Path) -> None:
    files = {one.path.name: one for one in render(make_plan(), tmp_path)}
    worker = files["emp-worker-tool-gpu0.service"].text
    assert "After=emp-tool-gpu0.service\n" in worker
    assert "TimeoutStopSec=40\n" in worker
    assert "RestartSec=5\nRestartPreventExitStatus=2\nKillMode=mixed\n" in worker
    assert "RestartSec=5\nKillMode=mixed\n" in files["emp-tool-gpu0.service"].text
    assert f"PartOf={TARGET}\n" in worker
    assert "Wants=emp-tool-gpu0.service emp-worker-tool-gpu0.service\n" in files[TARGET].text
    assert "After=" not in files["emp-tool-gpu0.service"].text


def test_words_are_written_as_systemd_reads_them(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(arguments=("100%", "$HOME", 'a "b"', "back\\slash", "line\nbreak", ""))
    unit = next(one for one in render(plan, tmp_path) if one.path.name == "emp-tool-gpu0.service").text
    assert '-m http.server "100%%" "$$HOME" "a \\"b\\"" "back\\\\slash" "line\\nbreak" ""\n' in unit


def test_variables_stand_in_private_files_and_never_in_a_unit(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan({"EMP_STORE": "hunter2"})
    files = render(plan, tmp_path)
    assert not [one.path for one in files if "hunter2" in one.text and not one.private]
    write_files(files, tmp_path)
    assert read_env_file(tmp_path / "env" / "worker-tool-gpu0.env")["EMP_STORE"] == "hunter2"
    assert f"EnvironmentFile={tmp_path}/env/worker-tool-gpu0.env\n" in files[2].text
