"""A machine with two pretended GPUs and a worker for `echo` on each, for tests that look after workers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
from attrs import define, field

__all__ = ["NO_PM2", "EchoMachine", "lives", "until"]

NO_PM2 = "PM2 was not found: `make .venv/node/.ready` installs it; it needs npm"

_LIMIT_S = 90.0
_MAPPING = {
    "workers": {
        "echo": {
            "services": ["echo"],
            "is_gpu_bound": True,
            "job_service_required_map": [{"job_service_required": "echo", "worker_service": "echo"}],
        }
    },
    "services": {"echo": {"connector": "EchoConnector", "type": "external_service"}},
    "connectors": {},
}


def lives(pid: int) -> bool:
    """Whether a process is there and no corpse."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(done: Callable[[], bool]) -> None:
    """Wait for other processes to bring something about; they tell nobody."""
    with anyio.fail_after(_LIMIT_S):
        while not done():  # noqa: ASYNC110 - the processes are others
            await anyio.sleep(0.05)


@define
class EchoMachine:
    """Calls commands as the processes that they are."""

    folder: Path
    redis_url: str
    namespace: str
    manager: str = "supervisor"
    python: str = sys.executable
    more: Mapping[str, str] = field(factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "machine"

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        mapping = self.folder / "service-mapping.json"
        mapping.write_text(json.dumps(_MAPPING))
        return {
            **kept,
            "HOME": str(self.folder),
            "EMP_DATA_DIR": str(self.folder),
            "EMP_SERVICE_MAPPING": str(mapping),
            "EMP_PROCESS_MANAGER": self.manager,
            "EMP_NAMESPACE": self.namespace,
            "EMP_LEASE_S": "2",
            "EMP_GRACE_S": "20",
            "HUB_REDIS_URL": self.redis_url,
            "MACHINE_ID": "box",
            "WORKERS": "echo:auto",
            "NUM_GPUS": "2",
            "GPU_MODE": "mock",
            **self.more,
        }

    def worker_folder(self, gpu: int) -> Path:
        return self.root / f"worker_gpu{gpu}"

    def pid(self, gpu: int) -> int | None:
        """The number that worker.pid tells; None: there is no file."""
        file = self.worker_folder(gpu) / "worker.pid"
        return int(file.read_text()) if file.exists() else None

    def said(self, gpu: int) -> str:
        """All that a worker has put out."""
        log = self.worker_folder(gpu) / "logs" / "output.log"
        return log.read_text() if log.exists() else ""

    def call(self, *argv: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """A program, with its words and its exit code; without a terminal."""
        return subprocess.run(
            argv,
            env={**self.environ, **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )

    def wgpu(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return self.call(self.python, "-m", "emp_machine.wgpu.command", *arguments, **environ)

    def emp(self, *arguments: str) -> dict[str, Any]:
        """`emp machine` with ``--json``; gives the document."""
        done = self.call(self.python, "-m", "emp_core.cli", "machine", *arguments, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        return {**document, "code": done.returncode}

    def standing(self, gpu: int) -> str | None:
        """What `emp machine up` thinks of a worker."""
        [found] = self.emp("status", f"worker-echo-gpu{gpu}")["data"]["processes"]
        standing: str | None = found["standing"]
        return standing

    def restarts(self) -> list[int]:
        """How often `emp machine up` has seen workers end by themselves."""
        return [one["restarts"] for one in self.emp("status", "workers")["data"]["processes"]]

    @contextmanager
    def up(self) -> Iterator["subprocess.Popen[str]"]:
        """`emp machine up`, ready; ended by SIGTERM."""
        with (self.folder / "up.err").open("ab") as errors:
            process = subprocess.Popen(
                [self.python, "-m", "emp_core.cli", "machine", "up", "--json"],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["ok"], said
            yield process
            process.terminate()
            assert process.wait(_LIMIT_S) == 0
        finally:
            process.kill()
            process.communicate(timeout=_LIMIT_S)
            self.end()

    def end(self) -> None:
        """Leave nothing behind."""
        self.call(self.python, "-m", "emp_core.cli", "machine", "stop")
