"""Where the peers live: a virtual environment for each, and a folder of npm's. Made when first needed, at locked versions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import frozen

__all__ = ["NODE", "PYTHON_PEERS", "Missing", "Peer", "find_peer"]

HERE = Path(__file__).parent
NODE = "bullmq"
PYTHON_PEERS = ("arq", "saq", "taskiq", "dramatiq", "celery", "huey", "rq", "streaq")
_INSTALL_LIMIT_S = 600.0


class Missing(Exception):
    """A peer cannot be measured here. Says why."""


@frozen
class Peer:
    """A queue to be measured.

    Attributes:
        command: how its program is started; the role comes after it.
        version: of its distribution, and of what it reaches Redis with.
    """

    name: str
    command: tuple[str, ...]
    version: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this is emp-core."""
        return self.name == "ours"

    @property
    def is_python(self) -> bool:
        """Whether its workers are Python."""
        return self.name != NODE


def find_peer(name: str) -> Peer:
    """A peer, installed.

    Raises:
        Missing: it cannot be installed; says why.
    """
    if name == "ours":
        return Peer(name, _program(Path(sys.executable), name), _versions(Path(sys.executable), "emp-core"))
    if name == NODE:
        return _node_peer()
    python = _environment(name)
    return Peer(name, _program(python, name), _versions(python, "taskiq-redis" if name == "taskiq" else name))


def _program(python: Path, name: str) -> tuple[str, ...]:
    return (str(python), "-m", "bench.peers.program", name)


def _environment(name: str) -> Path:
    lock, folder = HERE / "locks" / f"{name}.txt", HERE / ".venvs" / name
    python, ready = folder / "bin" / "python", folder / ".locked"
    if ready.is_file() and ready.read_bytes() == lock.read_bytes():
        return python
    _say(f"installing {name} into {folder.relative_to(HERE.parent)} ...")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], name)
    given = ["--require-hashes", "-r", str(lock)]
    uv = Path(sys.executable).with_name("uv")
    try:
        if not uv.is_file():
            raise Missing("there is no uv")
        _run([str(uv), "pip", "install", "--quiet", "--python", str(python), *given], name)
    except Missing:  # uv does not read pip's configuration: where that names an index of its own, pip must do it
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *given], name)
    shutil.copyfile(lock, ready)
    return python


def _node_peer() -> Peer:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("Node.js and npm are not installed")
    folder = HERE / "node"
    lock, ready = folder / "package-lock.json", folder / "node_modules" / ".locked"
    if not (ready.is_file() and ready.read_bytes() == lock.read_bytes()):
        _say(f"installing {NODE} into {(folder / 'node_modules').relative_to(HERE.parent)} ...")
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        # Not `ci`: it demands that the lock names optional packages of systems that a registry may not have.
        _run([npm, "install", "--no-save", "--prefix", str(folder), *quiet], NODE)
        shutil.copyfile(lock, ready)
    # Node looks for packages beside the program and above it: a copy stands where they are.
    program = folder / "node_modules" / "bullmq_peer.mjs"
    shutil.copyfile(HERE / "peers" / "bullmq_peer.mjs", program)
    script = "for (const p of ['bullmq','ioredis']) console.log(p, require(p + '/package.json').version)"
    said = subprocess.run([node, "-e", script], cwd=folder, capture_output=True, text=True, check=False)
    return Peer(NODE, (node, str(program)), ", ".join(said.stdout.split("\n")).strip(", "))


def _versions(python: Path, package: str) -> str:
    wanted = (package, "redis", "hiredis", "coredis")
    script = (
        "import sys\nfrom importlib.metadata import version, PackageNotFoundError\n"
        "for name in sys.argv[1:]:\n try: print(name, version(name))\n except PackageNotFoundError: pass"
    )
    said = subprocess.run([python, "-c", script, *wanted], capture_output=True, text=True, check=False)
    return ", ".join(said.stdout.split("\n")).strip(", ")


def _run(command: list[str], name: str) -> None:
    environ = {"UV_SYSTEM_CERTS": "1", **os.environ}
    try:
        subprocess.run(command, env=environ, check=True, timeout=_INSTALL_LIMIT_S, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()[-3:]
        raise Missing(f"{name} cannot be installed: {' / '.join(last)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{name} cannot be installed: {error}") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
