"""Where process managers keep what is theirs: below the machine's folder, readable to nobody else."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from emp_machine.errors import MachineError
from emp_machine.plan.model import Process

__all__ = ["make_folders", "private", "run_folder", "sockets_folder", "surroundings", "write_private"]

_SOCKET_PATH_MAX = 100
"""A Unix socket's path has at most 103 bytes on macOS and 107 on Linux."""
_LONGEST_NAME = "pm2/interactor.sock"
_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "VIRTUAL_ENV"}
    | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"}
)
_KEPT_BEGINNINGS = ("LC_", "XDG_", "CUDA_HOME", "CUDA_PATH", "NVIDIA_")


def run_folder(root: Path) -> Path:
    """The folder below ``root`` for what belongs to running processes."""
    return root / "run"


def sockets_folder(root: Path) -> Path:
    """Where sockets may be: the run folder, or a short name in the system's folder for temporary files.

    Raises:
        MachineError: somebody else has made that folder.
    """
    usual = run_folder(root)
    if len(os.fsencode(usual / _LONGEST_NAME)) <= _SOCKET_PATH_MAX:
        return private(usual)
    own = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - `private` takes no folder but our own
        folder = Path(base) / f"emp-{os.getuid()}" / own
        if len(os.fsencode(folder / _LONGEST_NAME)) <= _SOCKET_PATH_MAX:
            private(folder.parent)
            return private(folder)
    raise MachineError(
        f"no socket can be made: {root} is too long a path for one, and so is {tempfile.gettempdir()}",
        hint="set TMPDIR to a short path",
    )


def private(folder: Path) -> Path:
    """Make a folder that only this user can read.

    Raises:
        MachineError: it cannot be made, or is another user's.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise MachineError(
            f"{folder} cannot be made: {error.strerror or error}", hint="choose another folder, or make it writable"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise MachineError(f"{folder} is not a folder of this user", hint="remove it, or choose another folder")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


def make_folders(process: Process, root: Path) -> None:
    """Make the folders that a process needs to begin: of its log, and its own where that lies below ``root``.

    Raises:
        MachineError: one cannot be made.
    """
    own = [process.cwd] if process.cwd.is_relative_to(root) else []
    for folder in (process.log.parent, *own):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"{folder} of {process.name} cannot be made: {error.strerror or error}") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only this user can read it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    """What every process of the user has of its environment: where programs, homes, certificates and proxies are.

    The rest stays out: a process gets what its plan says, and no secret that is meant for another.
    """
    return {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)}
