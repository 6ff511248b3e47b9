"""The command, run in this process where that is enough, and as a process of its own where signals and terminals matter."""

import io
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from attrs import frozen
from redis import Redis

from emp_core.cli.main import run
from emp_core.config import Settings, variables_of

NOTHING: Mapping[str, str] = {}
COMMAND = [sys.executable, "-m", "emp_core.cli"]


@frozen
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def data(self) -> Any:
        return self.document["data"]

    @property
    def error(self) -> Any:
        return self.document["error"]


class Emp(Protocol):
    def __call__(
        self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] = NOTHING, **more: str
    ) -> Ended: ...


@pytest.fixture
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """None of the user's settings, a data folder of the test's own, and logging as it was before."""
    for variable in variables_of(Settings):
        for name in (variable.name, *variable.aliases):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMP_DATA_DIR", str(tmp_path / "data"))
    root, own = logging.getLogger(), logging.getLogger("emp")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])
    logging.getLogger("emp.submit").setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def emp(hermetic: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Emp:
    """Runs a command in this process: the same entry point, without the start of an interpreter."""

    def call(*arguments: str, stdin: bytes = b"", environ: Mapping[str, str] = NOTHING, **more: str) -> Ended:
        for name, value in {**environ, **more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@frozen
class Hub:
    """A namespace in which a worker for ``echo`` runs, as a process of its own."""

    url: str
    namespace: str
    worker_id: str

    @property
    def environ(self) -> dict[str, str]:
        return {"HUB_REDIS_URL": self.url, "EMP_NAMESPACE": self.namespace}


@pytest.fixture(scope="session")
def hub(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One for all tests that only need some worker."""
    namespace = f"{{test-cli-{secrets.token_hex(6)}}}:"
    given = {"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace, "EMP_RETRY_BASE_S": "0"}
    environ = environ_of(tmp_path_factory.mktemp("hub"), **given)
    worker = start("worker", "echo", "--json", environ=environ, stderr=subprocess.DEVNULL)
    try:
        yield Hub(redis_url, namespace, ready(worker)["workers"][0]["id"])
    finally:
        worker.terminate()
        worker.communicate(timeout=20)
        with Redis.from_url(redis_url, protocol=2) as client:
            if left := list(client.scan_iter(match=f"{namespace}*", count=1000)):
                client.unlink(*left)


@pytest.fixture
def on_hub(emp: Emp, hub: Hub) -> Emp:
    """Runs a command on the hub."""

    def call(*arguments: str, stdin: bytes = b"", environ: Mapping[str, str] = NOTHING, **more: str) -> Ended:
        return emp(*arguments, stdin=stdin, environ={**hub.environ, **environ, **more})

    return call


def environ_of(folder: Path, **given: str) -> dict[str, str]:
    """An environment with nothing of the user's settings in it."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    return {**kept, "HOME": str(folder), "EMP_DATA_DIR": str(folder / "data"), **given}


def start(*arguments: str, environ: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process of its own."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in what a shell script runs in the background; children inherit it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen([*COMMAND, *arguments], env=environ, text=True, **given)
    finally:
        signal.signal(signal.SIGINT, before)


def ready(process: subprocess.Popen[str]) -> Any:
    """What a server command says with --json when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"it ended before it was ready: {process.communicate(timeout=20)}")
    return json.loads(line)["data"]
