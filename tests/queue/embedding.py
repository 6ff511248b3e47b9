"""Looking at an embedded Redis from outside."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis


def state(data_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data_dir / "redis" / "state.json").read_text())
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(holds: Callable[[], object], limit_s: float = 15.0) -> None:
    """For what no process tells: that one which is not ours is gone."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def client(url: str) -> Redis:
    return Redis.from_url(url, protocol=2, socket_timeout=5)


def put(url: str, value: str) -> None:
    with client(url) as connection:
        connection.set("kept", value)


def kept(url: str) -> str:
    with client(url) as connection:
        return str(connection.get("kept"), "ascii")
