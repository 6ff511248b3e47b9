"""Starting the embedded Redis's supervisor, and ending a server that has lost its own."""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from emp_core.errors import QueueUnavailable
from emp_core.queue import embedded_supervisor as keeper
from emp_core.queue.embedded_folder import POLL_S, is_held, unavailable

__all__ = ["END_LIMIT_S", "end_orphan", "spawn_supervisor"]

END_LIMIT_S = 20.0


def end_orphan(folder: Path) -> None:
    """End a server whose supervisor was killed. The lock proves that it is ours: it holds its address while it lives."""
    deadline = time.monotonic() + END_LIMIT_S
    asked = False
    while is_held(folder, keeper.SERVER_LOCK):
        state = keeper.read_state(folder)
        if not asked and state.get("port"):
            asked = True
            with contextlib.suppress(OSError):  # it is ending by itself
                keeper.ask(state["port"], state["password"], "SHUTDOWN", timeout_s=5.0)
        if time.monotonic() > deadline:
            raise unavailable(folder, "was left without its supervisor and does not end", keeper.log_tail(folder))
        time.sleep(POLL_S)


def spawn_supervisor(folder: Path, binary: Path, given_up: threading.Event) -> dict[str, Any]:
    """Start the supervisor and return its first word: ``{"ready": true}``, or ``error``, ``log`` and ``errno``."""
    with (folder / keeper.LOG).open("ab") as log:
        offset = log.tell()
        process = subprocess.Popen(  # noqa: S603 - this Python, with a script of this package
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            start_new_session=True,  # a Ctrl-C is for the workers; the server must outlive their draining
        )
    order = json.dumps({"folder": str(folder), "binary": str(binary)}).encode() + b"\n"
    with process:
        if process.stdin is None or process.stdout is None:
            raise QueueUnavailable(f"the embedded Redis in {folder} cannot be given its order")
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(order)
        word = b""
        while not word.endswith(b"\n"):
            if given_up.is_set():
                raise unavailable(folder, "is not wanted any more", "")
            if not select.select([process.stdout], [], [], 0.1)[0]:
                continue
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            word += chunk
    if not word.endswith(b"\n"):
        return {"error": "its supervisor ended", "log": keeper.log_tail(folder, offset)}
    first: dict[str, Any] = json.loads(word)
    return first
