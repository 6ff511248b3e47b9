"""A private Redis: stock configuration, nothing saved unless a fault needs it, on a free port of the loopback."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from emp_core.queue.server_binary import find_server

__all__ = ["Server", "free_port"]

_START_LIMIT_S = 10.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A Redis that lives as long as the block.

    Args:
        append_only: write an append-only file, so that it can be killed and come back.
    """

    def __init__(self, *, append_only: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._append_only = append_only
        self._folder = tempfile.TemporaryDirectory(prefix="emp-bench-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = redis.Redis(port=self.port, decode_responses=True, protocol=2)

    def start(self) -> None:
        """Start it, or start it again."""
        command = [str(find_server()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes" if self._append_only else "no", "--dir", self._folder.name]
        log = Path(self._folder.name) / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        ends = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                self.client.ping()
            except redis.RedisError:
                if time.monotonic() > ends:
                    raise RuntimeError(f"redis did not start: {log.read_text()[-500:]}") from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.client.connection_pool.disconnect()

    def clean(self) -> None:
        """Empty it."""
        self.client.flushall()
        self.client.config_resetstat()

    def cpu_s(self) -> float:
        """CPU time that it used until now."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    @property
    def version(self) -> str:
        """The server's own."""
        return str(self.client.info("server")["redis_version"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()
