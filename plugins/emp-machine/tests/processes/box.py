"""A box for tests: `emp machine up` as a process of its own, with services that are fakes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from emp_core.testing.ports import free_port

EMP = (sys.executable, "-m", "emp_core.cli")
_LONG_S = 180.0
_END_S = 60.0


@define
class Box:
    """A machine with two pretended GPUs, and a ComfyUI server that is a fake on each."""

    folder: Path
    more: Mapping[str, str] = field(factory=dict)
    port: int = field(factory=lambda: free_port(beside=(1,)))
    redis_port: int = field(factory=free_port)
    command: tuple[str, ...] = ("{python}", "-m", "emp_comfyui.testing", "--port", "{port}")

    @property
    def root(self) -> Path:
        return self.folder / "data" / "machine"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}"

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        mapping = self.folder / "service-mapping.json"
        mapping.write_text(json.dumps(self._mapping()))
        return {
            **kept,
            "HOME": str(self.folder),
            "EMP_DATA_DIR": str(self.folder / "data"),
            "EMP_SERVICE_MAPPING": str(mapping),
            "EMP_MACHINE_REDIS_PORT": str(self.redis_port),
            "EMP_LEASE_S": "2",
            "EMP_RETRY_BASE_S": "0",
            "EMP_GRACE_S": "5",
            "MACHINE_ID": "box",
            "WORKERS": "comfyui",
            "NUM_GPUS": "2",
            "GPU_MODE": "mock",
            **self.more,
        }

    def _mapping(self) -> dict[str, Any]:
        route = {"job_service_required": "comfyui", "worker_service": "comfyui"}
        service = {
            "connector": "ComfyUIWebSocketConnector",
            "type": "pm2_service",
            "installer": "CommandServiceInstaller",
            "is_gpu_bound": True,
            "ports": [str(self.port)],
            "installer_config": {
                "command": list(self.command),
                "health": "/system_stats",
                "worker_environ": {"COMFYUI_HOST": "{host}", "COMFYUI_PORT": "{port}"},
            },
        }
        worker = {"services": ["comfyui"], "is_gpu_bound": True, "job_service_required_map": [route]}
        return {"workers": {"comfyui": worker}, "services": {"comfyui": service}, "connectors": {}}

    def emp(self, *arguments: str) -> dict[str, Any]:
        """A command with ``--json``; gives the document."""
        done = subprocess.run(
            [*EMP, *arguments, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_LONG_S,
            cwd=self.folder,
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return {**document, "code": done.returncode}

    @contextmanager
    def up(self, *arguments: str) -> Iterator["Up"]:
        """`emp machine up`; killed at the end, if it is still there."""
        with (self.folder / "up.err").open("ab") as errors:
            process = subprocess.Popen(
                [*EMP, "machine", "up", "--json", *arguments],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            yield Up(process)
        finally:
            killed = process.poll() is None
            process.kill()
            process.communicate(timeout=_END_S)
            if killed:  # a test that failed must not leave a box behind
                subprocess.run([*EMP, "machine", "stop"], env=self.environ, capture_output=True, timeout=_END_S)


@define
class Up:
    """`emp machine up` that runs."""

    process: "subprocess.Popen[str]"

    def ready(self) -> dict[str, Any]:
        """What it says when all is ready."""
        assert self.process.stdout is not None
        document = json.loads(self.process.stdout.readline())
        assert document["ok"], document
        data: dict[str, Any] = document["data"]
        return data

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(_END_S)
