"""Worker processes that can be started in a moment, killed, stopped and continued.

A process that has imported everything forks one for every worker: starting Python anew for each takes a second.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.chaos.servers import die_with_parent

_ROOT = Path(__file__).parents[2]


@define(eq=False)
class Process:
    """One worker process."""

    name: str
    pid: int

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended is left alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is stopped."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


@define(eq=False)
class Nursery:
    """Forks workers. All of them end with it, and it ends with this process."""

    process: subprocess.Popen[str]
    processes: list[Process] = field(factory=list)

    def start(self, name: str, log: Path, **order: Any) -> Process:
        """Start a worker under a name; ``order`` is for `tests.chaos.worker_process`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"name": name, "log": str(log), **order}) + "\n")
        self.process.stdin.flush()
        made = Process(name, int(self.process.stdout.readline()))
        self.processes.append(made)
        return made

    def kill_all(self) -> None:
        """kill -9, whatever state they are in."""
        for one in self.processes:
            one.signal(signal.SIGKILL)


@contextmanager
def nursery(environ: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """A process that forks workers.

    Args:
        environ: more for its environment.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.worker_process"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **(environ or {})},
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
    )
    made = Nursery(process)
    try:
        yield made
    finally:
        made.kill_all()
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
