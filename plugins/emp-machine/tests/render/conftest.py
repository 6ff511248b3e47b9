"""Plans to render."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest
from emp_machine.plan.model import GpuPlan, MachinePlan, Process, ProcessKind

from emp_core.services.launch import HealthCheck


class MakePlan(Protocol):
    """Makes a plan of one service and its worker."""

    def __call__(
        self, environ: Mapping[str, str] | None = None, *, arguments: tuple[str, ...] = (), own_redis: bool = False
    ) -> MachinePlan: ...


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    """The service runs Python with ``arguments``; the worker has the variables ``environ``."""

    def make(
        environ: Mapping[str, str] | None = None, *, arguments: tuple[str, ...] = (), own_redis: bool = False
    ) -> MachinePlan:
        root = tmp_path / "root"
        shared = {"WORKERS": "tool", **(environ or {})}
        service = Process(
            name="tool-gpu0",
            kind=ProcessKind.SERVICE,
            argv=(sys.executable, "-m", "http.server", *arguments),
            cwd=root,
            log=root / "logs" / "tool-gpu0.log",
            environ={"CUDA_VISIBLE_DEVICES": "0", "TOOL_PORT": "8188"},
            service="tool",
            health=HealthCheck("http://127.0.0.1:8188/", 8188),
            gpu=0,
            stop_s=5.5,
            endpoint="127.0.0.1:8188",
        )
        worker = Process(
            name="worker-tool-gpu0",
            kind=ProcessKind.WORKER,
            argv=(sys.executable, "-m", "emp_core.cli", "worker"),
            cwd=root / "worker_gpu0",
            log=root / "worker_gpu0" / "logs" / "output.log",
            environ={**shared, "WORKER_ID": "tool-gpu0", "GPU_ID": "0"},
            worker_type="tool",
            needs=("tool-gpu0",),
            gpu=0,
            stop_s=40.0,
            endpoint="127.0.0.1:8188",
        )
        for one in (service, worker):
            one.log.parent.mkdir(parents=True, exist_ok=True)
        return MachinePlan(
            machine_id="box",
            root=root,
            gpus=(GpuPlan(0, mock=True),),
            services=(),
            processes=(service, worker),
            environ=shared,
            own_redis=own_redis,
        )

    return make


ODD = {
    "A_JSON": '{"owner": "me", "fast": true}',
    "A_PERCENT": "100%(here)s",
    "A_DOLLAR": "$HOME ${HOME} `id` \\ back",
    "BOTH_QUOTES": """it's "so" """,
    "QUOTED": '"whole"',
    "A_COMMENT": "a ;b #c",
    "LINES": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
    "BLANKS": "  two  ",
    "NOTHING": "",
    "FAR": "\N{SNOWMAN}",
}
"""Texts that formats of files stumble over."""
