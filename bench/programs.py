"""The processes of a peer: clients, which take orders, and workers, which tell when their jobs ran."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from bench.environments import HERE, Peer
from bench.peers.probe import WORD

__all__ = ["Client", "Failure", "WorkerProcess", "usage_of"]

_REPLY_LIMIT_S = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A peer's process ended or did not answer. Says what it said last."""


class Program:
    """A process of a peer, for as long as the block."""

    def __init__(self, peer: Peer, role: str, url: str, **environ: str) -> None:
        self._peer = peer
        self._role = role
        self._environ = {**os.environ, "BENCH_REDIS": url, "PYTHONPATH": str(HERE.parent), **environ}
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [*self._peer.command, self._role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=HERE.parent,
            env=self._environ,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with contextlib.suppress(ValueError):  # closed when the block ended
            for line in stdout:
                if line.startswith(WORD.encode()):
                    self._heard.put(json.loads(line[len(WORD) :]))
        self._heard.put(None)

    def hear(self, key: str, limit_s: float = _REPLY_LIMIT_S) -> dict[str, Any]:
        """The next message that has ``key``.

        Raises:
            Failure: it did not come.
        """
        ends = time.monotonic() + limit_s
        while True:
            try:
                message = self._heard.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                raise Failure(f"{self._peer.name} {self._role} said nothing of {key!r} for {limit_s:g} s") from None
            if message is None:
                self._errors.seek(0)
                raise Failure(f"{self._peer.name} {self._role} ended: {self._errors.read()[-600:].decode()}")
            if key in message:
                return message


class Client(Program):
    """A process that submits and waits."""

    def __init__(self, peer: Peer, url: str) -> None:
        super().__init__(peer, "client", url)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.hear("ready", 60)
        except BaseException:
            super().__exit__(None, None, None)
            raise
        return self

    def order(self, what: str, reply: str = "seconds", **details: Any) -> Any:
        """Have it do something; gives the part of its reply that is asked for."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
        stdin.flush()
        return self.hear(reply)[reply]


class WorkerProcess(Program):
    """A process that works."""

    def __init__(self, peer: Peer, url: str, **environ: str) -> None:
        super().__init__(peer, "worker", url, **environ)


@frozen
class Usage:
    """What a process used until now."""

    cpu_s: float
    rss_mb: float


def usage_of(pid: int) -> Usage:
    """Read it from /proc."""
    stat = (Path("/proc") / str(pid) / "stat").read_text()
    fields = stat.rpartition(")")[2].split()
    status = (Path("/proc") / str(pid) / "status").read_text()
    rss_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, rss_kb / 1024)
