"""The embedded Redis: a real server for one user on one machine, with no set-up.

The first process that wants it starts it, more of them share it, and it ends when the last one leaves, however that one
ends; asked to stay, it stays until `stop`. Its data survive in the user's data folder. It listens on loopback only and
asks for a password that only its own user can read.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from attrs import field, frozen

from emp_core.errors import QueueUnavailable
from emp_core.log.logger import get_logger
from emp_core.queue import embedded_supervisor as keeper
from emp_core.queue.embedded_folder import (
    POLL_S,
    WAIT_LIMIT_S,
    folder_errors,
    is_held,
    lock_within,
    only_one,
    unavailable,
)
from emp_core.queue.embedded_launch import END_LIMIT_S, end_orphan, spawn_supervisor
from emp_core.queue.server_binary import find_server

__all__ = ["EmbeddedRedis", "embedded_redis", "find_server", "running", "stop", "use_embedded_redis"]

_log = get_logger("emp.redis")


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
        with self._turn, only_one(self._folder, self._given_up):
            with folder_errors(self._folder):
                self._users = keeper.open_lock(self._folder, keeper.USERS_LOCK)
            # Held by a supervisor that is ending its server, until both are gone.
            lock_within(self._users, fcntl.LOCK_SH, self._given_up, self._folder)
            found = _wait_for_running(self._folder, self._given_up)
            if found is None:
                self._start()
                found = _wait_for_running(self._folder, self._given_up)
            if found is None:
                raise unavailable(self._folder, "ended as soon as it had started", keeper.log_tail(self._folder))
            _check_answers(found)
            if self._stay:
                with folder_errors(self._folder):
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
        deadline = time.monotonic() + END_LIMIT_S
        while is_held(self._folder, keeper.SUPERVISOR_LOCK):
            if keeper.read_state(self._folder).get("supervisor_pid") != supervisor:
                return  # somebody came and started the next one
            if time.monotonic() > deadline:
                _log.warning("embedded Redis is slow to end", folder=str(self._folder))
                return
            time.sleep(POLL_S)

    def _start(self) -> None:
        end_orphan(self._folder)
        binary = find_server()
        with folder_errors(self._folder):
            (self._folder / keeper.STAY).unlink(missing_ok=True)
            word = spawn_supervisor(self._folder, binary, self._given_up)
            if word.get("errno"):
                raise OSError(word["errno"], os.strerror(word["errno"]))
        if "ready" not in word:
            raise unavailable(self._folder, f"did not start: {word['error']}", word["log"])


def _folder(data_dir: Path) -> Path:
    return data_dir.expanduser().absolute() / "redis"


def _is_last(folder: Path, users: int) -> bool:
    """Give back a share in the server; whether it was the last one."""
    if keeper.try_lock(users, fcntl.LOCK_EX):
        return True
    # Others share it, or the supervisor has got it in this instant and keeps it until the server is gone.
    return is_held(folder, keeper.USERS_LOCK)


def _running(folder: Path) -> EmbeddedRedis | None:
    if not folder.is_dir() or not is_held(folder, keeper.SUPERVISOR_LOCK):
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
    deadline = time.monotonic() + WAIT_LIMIT_S
    while is_held(folder, keeper.SUPERVISOR_LOCK):
        found = _described(folder, keeper.read_state(folder))
        if found is not None:
            return found
        # It is coming back after a crash, or going.
        if given_up.wait(POLL_S) or time.monotonic() > deadline:
            raise unavailable(folder, "is not ready", keeper.log_tail(folder))
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


def _stop(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with only_one(folder, threading.Event()):
        (folder / keeper.STAY).unlink(missing_ok=True)
        if not is_held(folder, keeper.SUPERVISOR_LOCK):
            orphan = is_held(folder, keeper.SERVER_LOCK)
            end_orphan(folder)
            return orphan
        with contextlib.suppress(OSError):  # nobody reads: it is ending by itself
            control = os.open(folder / keeper.CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(control, b"stop\n")
            finally:
                os.close(control)
        deadline = time.monotonic() + END_LIMIT_S
        while is_held(folder, keeper.SUPERVISOR_LOCK):
            if time.monotonic() > deadline:
                raise unavailable(folder, "does not end", keeper.log_tail(folder))
            time.sleep(POLL_S)
    return True
