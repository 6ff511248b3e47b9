"""The embedded Redis's folder: its locks, and what goes wrong there."""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from emp_core.errors import ConfigError, QueueUnavailable
from emp_core.queue import embedded_supervisor as keeper

__all__ = ["folder_errors", "is_held", "lock_within", "only_one", "unavailable"]

POLL_S = 0.02
"""How often to look at what cannot be waited for with a time limit."""

WAIT_LIMIT_S = 120.0
"""Another process may be loading a large data set while this one waits for it."""


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Say what an error of the system means for the folder, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise QueueUnavailable(
                f"the embedded Redis has no room in {folder}: {error.strerror}",
                hint="free some space, or set EMP_DATA_DIR to a folder on another disk",
            ) from error
        raise ConfigError(
            f"the embedded Redis cannot use its folder {folder}: {error.strerror or error}",
            hint="make it writable for this user, set EMP_DATA_DIR to another folder, or set HUB_REDIS_URL to a Redis that runs",
        ) from error


@contextlib.contextmanager
def only_one(folder: Path, given_up: threading.Event) -> Iterator[None]:
    """Start and stop are for one process at a time."""
    with folder_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        lock = keeper.open_lock(folder, keeper.START_LOCK)
    try:
        lock_within(lock, fcntl.LOCK_EX, given_up, folder)
        yield
    finally:
        os.close(lock)


def lock_within(lock: int, operation: int, given_up: threading.Event, folder: Path) -> None:
    """Take a lock as soon as it is free, unless it is given up or takes too long."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not keeper.try_lock(lock, operation):
        if given_up.wait(POLL_S) or time.monotonic() > deadline:
            raise unavailable(folder, "is still being started or stopped by another process", "")


def is_held(folder: Path, name: str) -> bool:
    """Whether a living process holds this lock for itself."""
    try:
        lock = keeper.open_lock(folder, name)
    except OSError:  # no folder, or none of ours: nothing runs there that we could use
        return False
    try:
        return not keeper.try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def unavailable(folder: Path, what: str, log: str) -> QueueUnavailable:
    """The error that says what is wrong with the server and shows the end of its log."""
    shown = f"\n{log}" if log else ""
    return QueueUnavailable(
        f"the embedded Redis in {folder} {what}{shown}",
        hint=f"its log is {folder / keeper.LOG}; HUB_REDIS_URL names another Redis to use",
    )
