"""The embedded Redis: a real server for one user on one machine, with no set-up.

The first process that wants it starts it, more of them share it, and it ends when the last one leaves, however that one
ends; asked to stay, it stays until `stop`. Its data survive in the user's data folder. It listens on loopback only and
asks for a password that only its own user can read.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog
from attrs import field, frozen

from emp_core.errors import ConfigError, QueueUnavailable
from emp_core.queue import embedded_supervisor as keeper
from emp_core.queue.server_binary import find_server

__all__ = ["EmbeddedRedis", "embedded_redis", "find_server", "running", "stop", "use_embedded_redis"]

_START_LIMIT_S = 120.0  # another process may be loading a large data set while this one waits for it
_END_LIMIT_S = 20.0
_POLL_S = 0.02  # a lock cannot be waited for with a time limit

_log = structlog.get_logger("emp.redis")


@frozen
class EmbeddedRedis:
    """An embedded Redis that runs.

    Attributes:
        url: its address, password included. Never log it.
        port: its port on 127.0.0.1.
        pid: the server's process id; changes when the server crashed and was started again.
        folder: where its data and its log are.
        binary: what runs.
        since: since when.
        stays: whether it outlives the processes that use it.
    """

    url: str = field(repr=False)
    port: int
    pid: int
    folder: Path
    binary: Path
    since: datetime
    stays: bool

    @property
    def cli_command(self) -> str:
        """A shell command that opens a prompt on it; shows the password."""
        return f"redis-cli -u {self.url}"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / keeper.LOG


@contextlib.asynccontextmanager
async def embedded_redis(data_dir: Path, *, stay: bool = False) -> AsyncIterator[EmbeddedRedis]:
    """Use the embedded Redis in ``data_dir/redis``; start it unless it runs.

    Args:
        data_dir: the data folder of the settings; made when missing.
        stay: whether the server is to stay when nobody uses it any more.

    Raises:
        ConfigError: there is no server to start, or the folder cannot be used.
        QueueUnavailable: the server does not start or does not answer; holds its log's last lines.
    """
    use = _Use(_folder(data_dir), stay)
    try:
        yield await anyio.to_thread.run_sync(use.enter)
    finally:
        use.give_up()
        with anyio.CancelScope(shield=True):  # bounded by leave's own limit
            await anyio.to_thread.run_sync(use.leave)


@contextlib.contextmanager
def use_embedded_redis(data_dir: Path, *, stay: bool = False) -> Iterator[EmbeddedRedis]:
    """The same as `embedded_redis`, for code without an event loop."""
    use = _Use(_folder(data_dir), stay)
    try:
        yield use.enter()
    finally:
        use.leave()


async def running(data_dir: Path) -> EmbeddedRedis | None:
    """The embedded Redis that runs in this data folder, or None. Does not become a user of it."""
    return await anyio.to_thread.run_sync(_running, _folder(data_dir))


async def stop(data_dir: Path) -> bool:
    """Stop the embedded Redis of this data folder, whoever uses it; its data stay. False when none ran.

    Raises:
        ConfigError: the folder cannot be used.
        QueueUnavailable: it did not end in time.
    """
    return await anyio.to_thread.run_sync(_stop, _folder(data_dir))


class _Use:
    """One process's part in the server's life. ``enter`` and ``leave`` may run in different threads."""

    def __init__(self, folder: Path, stay: bool) -> None:
        self._folder = folder
        self._stay = stay
        self._given_up = threading.Event()
        self._turn = threading.Lock()  # so that a leave waits for an enter that nobody waits for any more
        self._users: int | None = None

    def give_up(self) -> None:
        """Make an ``enter`` that still waits end soon."""
        self._given_up.set()

    def enter(self) -> EmbeddedRedis:
        with self._turn, _only_one(self._folder, self._given_up):
            with _folder_errors(self._folder):
                self._users = keeper.open_lock(self._folder, keeper.USERS_LOCK)
            # Held by a supervisor that is ending its server, until both are gone.
            _lock_within(self._users, fcntl.LOCK_SH, self._given_up, self._folder)
            found = _wait_for_running(self._folder, self._given_up)
            if found is None:
                self._start()
                found = _wait_for_running(self._folder, self._given_up)
            if found is None:
                raise _unavailable(self._folder, "ended as soon as it had started", keeper.log_tail(self._folder))
            _check_answers(found)
            if self._stay:
                with _folder_errors(self._folder):
                    (self._folder / keeper.STAY).touch()
        return found

    def leave(self) -> None:
        with self._turn:
            users, self._users = self._users, None
            if users is None:
                return
            supervisor = keeper.read_state(self._folder).get("supervisor_pid")
            last = _is_last(self._folder, users)
            os.close(users)
            if last and not (self._folder / keeper.STAY).exists():
                self._see_it_end(supervisor)

    def _see_it_end(self, supervisor: int | None) -> None:
        """Wait for the server to be gone, so that whoever owns the folder may remove it."""
        deadline = time.monotonic() + _END_LIMIT_S
        while _is_held(self._folder, keeper.SUPERVISOR_LOCK):
            if keeper.read_state(self._folder).get("supervisor_pid") != supervisor:
                return  # somebody came and started the next one
            if time.monotonic() > deadline:
                _log.warning("embedded Redis is slow to end", folder=str(self._folder))
                return
            time.sleep(_POLL_S)

    def _start(self) -> None:
        _end_orphan(self._folder)
        binary = find_server()
        with _folder_errors(self._folder):
            (self._folder / keeper.STAY).unlink(missing_ok=True)
            word = _spawn_supervisor(self._folder, binary, self._given_up)
        if "ready" not in word:
            raise _unavailable(self._folder, f"did not start: {word['error']}", word["log"])
        _log.info("embedded Redis started", folder=str(self._folder))


def _folder(data_dir: Path) -> Path:
    return data_dir.expanduser().absolute() / "redis"


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
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
def _only_one(folder: Path, given_up: threading.Event) -> Iterator[None]:
    """Start and stop are for one process at a time."""
    with _folder_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        lock = keeper.open_lock(folder, keeper.START_LOCK)
    try:
        _lock_within(lock, fcntl.LOCK_EX, given_up, folder)
        yield
    finally:
        os.close(lock)


def _lock_within(lock: int, operation: int, given_up: threading.Event, folder: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not keeper.try_lock(lock, operation):
        if given_up.wait(_POLL_S) or time.monotonic() > deadline:
            raise _unavailable(folder, "is still being started or stopped by another process", "")


def _is_held(folder: Path, name: str) -> bool:
    """Whether a living process holds this lock for itself."""
    try:
        lock = keeper.open_lock(folder, name)
    except OSError:  # no folder, or none of ours: nothing runs there that we could use
        return False
    try:
        return not keeper.try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def _is_last(folder: Path, users: int) -> bool:
    """Give back a share in the server; whether it was the last one."""
    if keeper.try_lock(users, fcntl.LOCK_EX):
        return True
    # Others share it, or the supervisor has got it in this instant and keeps it until the server is gone.
    return _is_held(folder, keeper.USERS_LOCK)


def _running(folder: Path) -> EmbeddedRedis | None:
    if not folder.is_dir() or not _is_held(folder, keeper.SUPERVISOR_LOCK):
        return None
    return _described(folder, keeper.read_state(folder))


def _described(folder: Path, state: dict[str, Any]) -> EmbeddedRedis | None:
    if state.get("status") != "running":
        return None
    return EmbeddedRedis(
        url=f"redis://default:{state['password']}@{keeper.HOST}:{state['port']}/0",
        port=state["port"],
        pid=state["pid"],
        folder=folder,
        binary=Path(state["binary"]),
        since=datetime.fromtimestamp(state["since"], UTC),
        stays=(folder / keeper.STAY).exists(),
    )


def _wait_for_running(folder: Path, given_up: threading.Event) -> EmbeddedRedis | None:
    """The server, once its supervisor says that it is ready; None when it has no supervisor."""
    deadline = time.monotonic() + _START_LIMIT_S
    while _is_held(folder, keeper.SUPERVISOR_LOCK):
        found = _described(folder, keeper.read_state(folder))
        if found is not None:
            return found
        # It is coming back after a crash, or going.
        if given_up.wait(_POLL_S) or time.monotonic() > deadline:
            raise _unavailable(folder, "is not ready", keeper.log_tail(folder))
    return None


def _check_answers(found: EmbeddedRedis) -> None:
    state = keeper.read_state(found.folder)
    try:
        answer = keeper.ask(found.port, state["password"], "PING", timeout_s=10.0)
    except OSError as error:
        answer = str(error)
    if answer != "+PONG" and not answer.startswith(("-LOADING", "-BUSY")):
        raise QueueUnavailable(
            f"the embedded Redis in {found.folder} runs, but does not answer on {keeper.HOST}:{found.port}: {answer!r}",
            hint="`emp redis stop` ends it; one that runs in another container needs a data folder of its own (EMP_DATA_DIR)",
        )


def _end_orphan(folder: Path) -> None:
    """End a server whose supervisor was killed. The lock proves that it is ours: it holds its address while it lives."""
    deadline = time.monotonic() + _END_LIMIT_S
    asked = False
    while _is_held(folder, keeper.SERVER_LOCK):
        state = keeper.read_state(folder)
        if not asked and state.get("port"):
            asked = True
            with contextlib.suppress(OSError):  # it is ending by itself
                keeper.ask(state["port"], state["password"], "SHUTDOWN", timeout_s=5.0)
        if time.monotonic() > deadline:
            raise _unavailable(folder, "was left without its supervisor and does not end", keeper.log_tail(folder))
        time.sleep(_POLL_S)


def _spawn_supervisor(folder: Path, binary: Path, given_up: threading.Event) -> dict[str, Any]:
    """Start the supervisor and return its first word: ``{"ready": true}`` or ``{"error": …, "log": …}``."""
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
                raise _unavailable(folder, "is not wanted any more", "")
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


def _stop(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with _only_one(folder, threading.Event()):
        (folder / keeper.STAY).unlink(missing_ok=True)
        if not _is_held(folder, keeper.SUPERVISOR_LOCK):
            orphan = _is_held(folder, keeper.SERVER_LOCK)
            _end_orphan(folder)
            return orphan
        with contextlib.suppress(OSError):  # nobody reads: it is ending by itself
            control = os.open(folder / keeper.CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(control, b"stop\n")
            finally:
                os.close(control)
        deadline = time.monotonic() + _END_LIMIT_S
        while _is_held(folder, keeper.SUPERVISOR_LOCK):
            if time.monotonic() > deadline:
                raise _unavailable(folder, "does not end", keeper.log_tail(folder))
            time.sleep(_POLL_S)
    return True


def _unavailable(folder: Path, what: str, log: str) -> QueueUnavailable:
    shown = f"\n{log}" if log else ""
    return QueueUnavailable(
        f"the embedded Redis in {folder} {what}{shown}",
        hint=f"its log is {folder / keeper.LOG}; HUB_REDIS_URL names another Redis to use",
    )
