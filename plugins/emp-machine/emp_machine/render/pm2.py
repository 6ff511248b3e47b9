"""``ecosystem.config.js`` for PM2 (https://pm2.keymetrics.io/docs/usage/application-declaration/)."""

import json
import math
from pathlib import Path
from typing import Any

from emp_machine.plan.model import MachinePlan, Process
from emp_machine.render.files import RenderedFile

__all__ = ["pm2_app", "render"]

_BACKOFF_MS = 100
"""What PM2 waits before it starts an app again; it grows by half each time, up to 15 s."""


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:  # noqa: ARG001 - what all renderers are given
    """One file with an app for each process, in the order in which they start."""
    apps = {"apps": [pm2_app(process) for process in plan.processes]}
    text = f"module.exports = {json.dumps(apps, indent=2)};\n"
    return (RenderedFile(Path("ecosystem.config.js"), text, private=True),)


def pm2_app(process: Process) -> dict[str, Any]:
    """A process as PM2 declares it."""
    return {
        "name": process.name,
        "script": process.argv[0],
        "args": list(process.argv[1:]),
        "interpreter": "none",  # or PM2 would have Node run a script
        "cwd": str(process.cwd),
        "env": dict(process.environ),
        "out_file": str(process.log),
        "error_file": str(process.log),
        "merge_logs": True,
        "autorestart": True,
        "exp_backoff_restart_delay": _BACKOFF_MS,
        "kill_timeout": math.ceil(process.stop_s * 1000),
        "treekill": True,
        "vizion": False,
    }
