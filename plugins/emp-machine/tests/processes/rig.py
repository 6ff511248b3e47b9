"""Processes to manage, and ways to look at them."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve
from emp_machine.plan.model import Process, ProcessKind

from emp_core.services.launch import HealthCheck

__all__ = ["SUBJECT", "lives", "subject", "until"]

SUBJECT = Path(__file__).with_name("subject.py")


def subject(root: Path, name: str, *arguments: str, port: int | None = None, **changed: Any) -> Process:
    """A process of ``subject.py``: ``subject(root, "one", "--deaf", port=8188)``."""
    argv = (sys.executable, "-I", "-S", str(SUBJECT), *(("--port", str(port)) if port else ()), *arguments)
    health = (
        HealthCheck(f"http://127.0.0.1:{port}/health", port, start_s=20, every_s=0.1, timeout_s=1) if port else None
    )
    made = Process(
        name=name,
        kind=ProcessKind.SERVICE,
        argv=argv,
        cwd=root,
        log=root / "logs" / f"{name}.log",
        health=health,
        stop_s=5.0,
        endpoint=f"127.0.0.1:{port}" if port else None,
    )
    return evolve(made, **changed)


def lives(pid: int) -> bool:
    """Whether a process is there and no corpse."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    if Path("/proc").is_dir():
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def until(done: Callable[[], object], *, limit_s: float = 20.0) -> None:
    """Wait for other processes to bring something about; they tell nobody."""
    with anyio.fail_after(limit_s):
        while True:
            found = done()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return
            await anyio.sleep(0.02)
