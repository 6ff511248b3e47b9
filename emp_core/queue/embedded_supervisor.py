"""The process that keeps an embedded Redis: starts it, restarts it after a crash, ends it after its last user.

It runs as a script of its own, detached, with nothing but the standard library, so that it starts fast and needs little.
All facts about who lives are kernel locks (``flock``), which end with their holder however it ends; no process id is ever
trusted or signalled, but for the server that this process itself has started:

    start.lock        held for a moment by whoever starts or stops
    users.lock        shared by every process that uses the server; this process waits to get it alone
    supervisor.lock   held by this process
    server.lock       held by the server itself, through an inherited descriptor that it does not know of
    control           a FIFO that this process reads: ``stop``
    stay              exists when the server is to outlive its users
    state.json        what is running, for those who have checked a lock; remembers port and password
"""

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

HOST = "127.0.0.1"
START_LOCK, USERS_LOCK, SUPERVISOR_LOCK, SERVER_LOCK = "start.lock", "users.lock", "supervisor.lock", "server.lock"
CONTROL, STAY, STATE, LOG = "control", "stay", "state.json", "server.log"

_PORTS = range(20_000, 30_000)  # below what systems give to outgoing connections, so that a port stays ours for long
_START_LIMIT_S = 30.0  # without counting the time in which the server says that it is loading
_END_LIMIT_S = 15.0
_LOCK_LIMIT_S = 30.0
_CRASHES_MAX, _CRASHES_WINDOW_S = 5, 60.0
_LOG_MAX_BYTES = 1 << 20
_LOG_TAIL_LINES = 12


def open_lock(folder: Path, name: str) -> int:
    """A descriptor of a lock file. Never inherited, unless it is handed on by name."""
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, operation: int) -> bool:
    """Take a lock if it is free now; ``operation`` is ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_state(folder: Path) -> dict[str, Any]:
    """What stands in the state file; empty when there is none, or none that can be read."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the state file. It holds the password, so nobody else may read it."""
    fresh = folder / f"{STATE}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(state, file)
    fresh.replace(folder / STATE)


def ask(port: int, password: str, command: str, timeout_s: float = 1.0) -> str:
    """The first line of the server's answer to an inline command; empty when it closed the connection instead.

    Raises:
        OSError: it cannot be reached.
    """
    with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
        connection.sendall(f"AUTH default {password}\r\n{command}\r\n".encode())
        with connection.makefile("rb") as answers:
            answers.readline(1024)
            return answers.readline(1024).decode(errors="replace").strip()


def log_tail(folder: Path, offset: int = 0) -> str:
    """The last lines of the server's log, from ``offset`` on."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(offset, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_TAIL_LINES:])


class _CannotStart(Exception):
    """The server did not come up; says why."""


class Supervisor:
    """Keeps one server in one folder, from the main thread only."""

    def __init__(self, folder: Path, binary: str) -> None:
        self._folder = folder
        self._binary = binary
        known = read_state(folder)
        self._port: int = known["port"] if isinstance(known.get("port"), int) else 0
        self._password: str = str(known.get("password") or secrets.token_hex(16))
        self._events: SimpleQueue[str] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._users = open_lock(folder, USERS_LOCK)
        self._server_lock = open_lock(folder, SERVER_LOCK)
        self._own_lock = open_lock(folder, SUPERVISOR_LOCK)
        self._log_offset = 0

    def run(self, tell: "_Starter") -> None:
        """Start the server, tell the starter, and stay until there is no reason to."""
        for name, lock in ((SUPERVISOR_LOCK, self._own_lock), (SERVER_LOCK, self._server_lock)):
            if not self._lock_within(lock, _LOCK_LIMIT_S):
                tell.error(f"{name} is still held by a process that is ending", "")
                return
        for wanted in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wanted, lambda *_: self._events.put("stop"))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self._write("starting")  # what an earlier life left there is not true any more
            self._trim_log()
            control = self._open_control()
            self._start()
            tell.ready()
            threading.Thread(target=self._watch_users, daemon=True).start()
            threading.Thread(target=self._watch_control, args=(control,), daemon=True).start()
            self._keep()
        except (_CannotStart, OSError) as error:
            number = error.errno if isinstance(error, OSError) else None
            tell.error(str(error), log_tail(self._folder, self._log_offset), number)
        finally:
            self._end()

    def _keep(self) -> None:
        crashes: list[float] = []
        while True:
            match self._events.get():
                case "stop":
                    return
                case "unused" if (self._folder / STAY).exists():
                    fcntl.flock(self._users, fcntl.LOCK_UN)
                case "unused":
                    return
                case "exited":
                    if self._exit_code() is None:  # an earlier server's exit, dealt with already
                        continue
                    if self._exit_code() == 0:  # SHUTDOWN, or a SIGTERM: somebody wanted it
                        return
                    crashes = [at for at in crashes if at > time.monotonic() - _CRASHES_WINDOW_S] + [time.monotonic()]
                    if len(crashes) >= _CRASHES_MAX:
                        return
                    self._restart()

    def _restart(self) -> None:
        # Those who use the server know its address, so it comes back there or not at all.
        for _ in range(10):
            if _is_free(self._port):
                break
            time.sleep(0.1)
        self._spawn()
        self._wait_until_ready()

    def _start(self) -> None:
        for _ in range(10):
            if not self._port or not _is_free(self._port):
                # The old password may be sent by latecomers to whoever has that port now.
                self._port, self._password = _free_port(), secrets.token_hex(16)
            self._spawn()
            try:
                self._wait_until_ready()
            except _CannotStart:
                if _is_free(self._port):
                    raise
                continue  # somebody took the port in between
            return
        raise _CannotStart("every port that was tried was taken")

    def _spawn(self) -> None:
        config = [
            f"bind {HOST}",
            f"port {self._port}",
            "protected-mode yes",
            f"requirepass {self._password}",
            "dir .",
            "daemonize no",
            "supervised no",
            'logfile ""',
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "aof-use-rdb-preamble no",  # commands are readable to every version; an RDB of a newer one is not
        ]
        self._process = None
        self._write("starting")
        with (self._folder / LOG).open("ab") as log:
            self._log_offset = log.tell()
            process = subprocess.Popen(  # noqa: S603 - the binary that find_server chose
                [
                    self._binary,
                    "-",
                ],  # the configuration goes through stdin: no file, no command line shows the password
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "LC_ALL": "C"},  # an unknown locale would end the server
                pass_fds=(self._server_lock,),
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - the other threads only wait in system calls
            )
        self._process = process
        if process.stdin is None:
            raise _CannotStart("the server cannot be told its configuration")
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # gone already: its log says why
            stdin.write("\n".join([*config, ""]).encode())
        threading.Thread(target=self._watch_server, args=(process,), daemon=True).start()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            if self._exit_code() is not None:
                raise _CannotStart(f"{self._binary} ended with exit code {self._exit_code()}")
            with contextlib.suppress(OSError):  # not listening yet
                answer = ask(self._port, self._password, "PING")
                if answer == "+PONG":
                    self._write("running")
                    return
                if answer.startswith("-LOADING"):
                    deadline = time.monotonic() + _START_LIMIT_S
            with contextlib.suppress(Empty):
                event = self._events.get(timeout=0.01)
                if event != "exited":
                    self._events.put(event)
                    raise _CannotStart("it was stopped before it was ready")
        raise _CannotStart(f"{self._binary} did not answer within {_START_LIMIT_S:.0f} s")

    def _exit_code(self) -> int | None:
        """None while the server runs. The thread that waits for it sets the code."""
        return None if self._process is None else self._process.returncode

    def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            self._write("stopping")
            process.terminate()
            try:
                process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._process = None
        self._write("stopped")

    def _write(self, status: str) -> None:
        try:
            write_state(
                self._folder,
                {
                    "status": status,
                    "port": self._port,
                    "password": self._password,
                    "pid": None if self._process is None else self._process.pid,
                    "supervisor_pid": os.getpid(),
                    "binary": self._binary,
                    "since": time.time(),
                },
            )
        except OSError:
            if status not in ("stopping", "stopped"):  # on the way out the locks say all that counts
                raise

    def _lock_within(self, descriptor: int, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _trim_log(self) -> None:
        log = self._folder / LOG
        if log.exists() and log.stat().st_size > _LOG_MAX_BYTES:
            log.replace(log.with_suffix(".log.1"))

    def _open_control(self) -> int:
        control = self._folder / CONTROL
        if control.exists() and not stat.S_ISFIFO(control.stat().st_mode):
            control.unlink()
        if not control.exists():
            os.mkfifo(control, 0o600)
        # Open for writing as well, so that it does not end when one writer closes.
        return os.open(control, os.O_RDWR | os.O_CLOEXEC)

    def _watch_users(self) -> None:
        fcntl.flock(self._users, fcntl.LOCK_EX)
        self._events.put("unused")

    def _watch_control(self, control: int) -> None:
        while True:
            if b"stop" in os.read(control, 4096):
                self._events.put("stop")

    def _watch_server(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._events.put("exited")


class _Starter:
    """The process that asked for the server, at the other end of a pipe; it may be gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> None:
        """Say that the state file tells the rest."""
        self._say({"ready": True})

    def error(self, message: str, log: str, number: int | None = None) -> None:
        """Say why there is no server; ``number`` is the system's, where it was the system that refused."""
        self._say({"error": message, "log": log, "errno": number})

    def _say(self, word: dict[str, Any]) -> None:
        if self._descriptor < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(word).encode() + b"\n")
        os.close(self._descriptor)
        self._descriptor = -1


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for port in secrets.SystemRandom().sample(_PORTS, 100):
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> Any:
    """What makes a child end when this process is killed, where the system can do that (Linux); None elsewhere.

    Elsewhere the next user finds the orphan by its lock and ends it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_for_signal() -> None:
        prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG, prctl(2)
        if os.getppid() != parent:  # it was killed before the call
            os.kill(os.getpid(), signal.SIGTERM)

    return ask_for_signal


def main() -> None:
    """Read the order from stdin, detach, and supervise."""
    order = json.loads(sys.stdin.readline())
    if os.fork():
        # The starter waits for this half only, and so is left without a child to reap.
        os._exit(0)
    os.umask(0o077)
    starter = _Starter(os.dup(sys.stdout.fileno()))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    Supervisor(Path(order["folder"]), order["binary"]).run(starter)


if __name__ == "__main__":
    main()
