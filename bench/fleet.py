"""Real ``emp worker`` processes to do harm to, and what the jobs' events say afterwards. Everything is at default settings."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from attrs import define, evolve, field

from bench.programs import Failure
from bench.servers import Server
from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue

__all__ = ["Fleet", "Verdict", "all_in", "echo", "judge", "opened", "until"]

_LIMIT_S = 120.0


class Fleet:
    """Worker processes, for as long as the block.

    Args:
        url: how they reach Redis.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._folder = tempfile.TemporaryDirectory(prefix="emp-bench-workers-")
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, *, slots: int, workers: int = 1, **environ: str) -> list[str]:
        """Start processes; gives the names of their workers.

        Args:
            slots: jobs at once for each worker.
            workers: workers in each process.
        """
        names = []
        for _ in range(count):
            number = len(self.processes)
            name = f"p{number}"
            names += [f"{name}@bench"] if workers == 1 else [f"{name}-{i}@bench" for i in range(workers)]
            own = {
                "HUB_REDIS_URL": self._url,
                "WORKERS": f"echo:{workers}",
                "WORKER_ID": name,
                "MACHINE_ID": "bench",
                "EMP_CONCURRENCY": str(slots),
                "EMP_DATA_DIR": self._folder.name,
                **environ,
            }
            with (Path(self._folder.name) / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "emp_core.cli", "worker"],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **own},
                    start_new_session=True,
                )
            self.processes.append(process)
        return names

    def signal(self, number: signal.Signals) -> float:
        """Send a signal to all; gives the time at which it was sent, as Redis tells time."""
        sent = time.time()
        for process in self.processes:
            process.send_signal(number)
        return sent

    @property
    def ended(self) -> int:
        """Processes that ended, for whatever reason."""
        return sum(1 for process in self.processes if process.poll() is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._folder.cleanup()


@asynccontextmanager
async def opened(server: Server) -> AsyncIterator[JobQueue]:
    """The bench's own way to the queue: never through a proxy."""
    async with JobQueue.connect(settings=evolve(Settings(), redis_url=server.url)) as queue:
        yield queue


def echo(seconds: float, steps: int = 1) -> JobSpec:
    """A job that takes so long."""
    return JobSpec(service_required="echo", payload={"$echo": {"seconds": seconds, "steps": steps}})


async def until(what: str, true: Any, *, limit_s: float = _LIMIT_S) -> None:
    """Wait until an async function gives True; nothing tells of what is waited for here.

    Raises:
        Failure: it took too long.
    """
    ends = time.monotonic() + limit_s
    while not await true():
        if time.monotonic() > ends:
            raise Failure(f"still not so after {limit_s:g} s: {what}")
        await anyio.sleep(0.05)


@define
class Verdict:
    """What became of jobs, by their events.

    Attributes:
        lost: without an outcome.
        doubled: with more than one.
        late: outcomes that were taken from a worker whose lease had ended.
        rescued: leases that were taken away.
        claims: worker → when it claimed, in seconds as Redis tells time.
    """

    lost: int = 0
    doubled: int = 0
    late: int = 0
    rescued: int = 0
    claims: dict[str, list[float]] = field(factory=dict)

    def first_claim(self, worker: str, after: float) -> float:
        """How long after a point in time the worker claimed again; infinite if it never did."""
        return min((at - after for at in self.claims.get(worker, ()) if at >= after), default=float("inf"))


async def judge(queue: JobQueue, ids: Sequence[str]) -> Verdict:
    """Read the events of all jobs."""
    verdict = Verdict()
    for job_id in ids:
        _judge_job(await queue.history(job_id), verdict)
    return verdict


def _judge_job(events: Sequence[JobEvent], verdict: Verdict) -> None:
    outcomes, lost_attempts = 0, set()
    for event in events:
        attempt = event.data.get("attempt")
        if event.name == "claimed":
            verdict.claims.setdefault(event.data["worker"], []).append(event.at.timestamp())
        elif event.name == "worker_lost":
            verdict.rescued += 1
            lost_attempts.add(attempt)
        elif event.is_final:
            outcomes += 1
            verdict.late += attempt in lost_attempts and "worker" in event.data
    verdict.lost += outcomes == 0
    verdict.doubled += outcomes > 1


async def all_in(queue: JobQueue, state: JobState, count: int) -> bool:
    """Whether so many jobs, or more, are in a state."""
    return (await queue.counts())[state] >= count
