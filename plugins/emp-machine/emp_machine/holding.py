"""Who holds a machine's folder: one at a time. The kernel's lock ends with its holder, however that ends."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from emp_machine.errors import MachineBusy, MachineError
from emp_machine.processes.folder import private, run_folder

__all__ = ["Holder", "hold", "holder"]

_FILE = "up.lock"


@frozen
class Holder:
    """A process that holds a machine.

    Attributes:
        pid: 0: it does not tell.
        since: when it began, as it wrote it.
    """

    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'}, since {self.since or 'some time'}"


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the machine's folder.

    Raises:
        MachineBusy: another process does; says which, and since when.
        MachineError: the folder cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)  # it may be a folder that others share: what is below it is ours
    except OSError as error:
        raise MachineError(
            f"{root} cannot be made: {error.strerror or error}",
            hint="make it writable for this user, or set EMP_MACHINE_ROOT to another folder",
        ) from error
    path = private(run_folder(root)) / _FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = _read(descriptor)
            raise MachineBusy(
                f"{root} is held by another `emp machine up`: {other}",
                hint=f"end it first (kill {other.pid})" if other.pid else "end it first",
                details={"pid": other.pid, "since": other.since},
            ) from error
        text = json.dumps({"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(root: Path) -> Holder | None:
    """Who holds the folder now; None: nobody."""
    try:
        descriptor = os.open(run_folder(root) / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


def _read(descriptor: int) -> Holder:
    try:
        said = json.loads(os.pread(descriptor, 1000, 0))
        return Holder(int(said["pid"]), str(said["since"]))
    except (ValueError, KeyError, TypeError):  # it has just begun
        return Holder(0, "")
