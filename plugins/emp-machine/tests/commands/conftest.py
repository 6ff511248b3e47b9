"""`emp machine`, run in this process on a machine where nothing is set."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from emp_core.cli.main import run


@frozen
class Said:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed as JSON."""
        document = json.loads(self.out)
        return document["data"] if document["ok"] else document["error"]


Emp = Callable[..., Said]


@pytest.fixture
def emp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Emp:
    """Runs ``emp machine`` with arguments and variables, in a folder of its own where nobody listens on any port."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(
            ("EMP_", "COMFY", "OLLAMA_", "OPENAI_", "HUB_", "REDIS_", "GPU_", "NUM_", "WORKER", "CUDA_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setattr("emp_machine.plan.here.strangers", lambda root: {})

    def call(*arguments: str, **environ: str) -> Said:
        with monkeypatch.context() as patch:
            for name, value in {"MACHINE_ID": "box", "EMP_MACHINE_ROOT": str(tmp_path / "root"), **environ}.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = run(["machine", *arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call
