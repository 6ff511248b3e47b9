"""The scripts that `wgpu setup` writes mean what they say, whatever stands in the names of folders."""

import os
import subprocess
from pathlib import Path

import pytest
from emp_machine.wgpu.setup import write_scripts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "it's a $(touch box)"


def test_scripts_are_programs_that_run_from_anywhere(root: Path, tmp_path: Path) -> None:
    wgpu, worker = write_scripts(root)
    for script in (wgpu, worker):
        assert script.stat().st_mode & 0o777 == 0o755
        shown = subprocess.run([script, "--help"], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
        assert f"Usage: {script.name} " in shown.stdout
    assert [one.name for one in tmp_path.iterdir()] == [root.name], "names are no commands"


def test_scripts_are_left_alone_when_they_are_as_they_should_be(root: Path) -> None:
    before = [script.stat().st_ino for script in write_scripts(root)]
    assert [script.stat().st_ino for script in write_scripts(root)] == before


@pytest.mark.parametrize("path", ["", ".", f"{os.pathsep}bin{os.pathsep}"])
def test_the_current_folder_does_not_get_into_the_path(root: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    worker = write_scripts(root)[1]
    [line] = [line for line in worker.read_text().splitlines() if line.startswith("export PATH=")]
    shown = subprocess.run(["/bin/sh", "-c", f"{line}; echo $PATH"], env={}, capture_output=True, text=True, check=True)
    assert all(Path(one).is_absolute() for one in shown.stdout.strip().split(os.pathsep))
