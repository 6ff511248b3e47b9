"""Processes are killed and stopped, Redis is killed and comes back: every job ends once."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import Process
from attrs import evolve
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.queue.server_binary import find_server
from emp_core.testing.ports import free_port
from emp_core.testing.processes import worker_process
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import names_of_events, until_event

LEASE_S = 0.5
FINAL = ("completed", "failed", "cancelled")


def fast(queue: JobQueue) -> Settings:
    """Leases that end soon."""
    return evolve(queue.settings, lease_s=LEASE_S, grace_s=0.0)


async def line_with(process: Process, *texts: str) -> None:
    """Wait until the process has written one of these."""
    assert process.stdout is not None
    seen = ""
    with anyio.fail_after(20):
        async for chunk in process.stdout:
            seen += chunk.decode(errors="replace")
            if any(text in seen for text in texts):
                return
    raise AssertionError(f"the process ended without any of {texts}: {seen}")


async def one_outcome(queue: JobQueue, job_id: str) -> None:
    names = await names_of_events(queue, job_id)
    assert sum(name in FINAL for name in names) == 1, names


async def test_another_worker_finishes_the_job_of_one_that_was_killed(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    keeper = steered_binding(Steering(), "something-else")
    await start_worker(keeper, lease_s=LEASE_S)
    async with worker_process(fast(queue), "echo", "victim") as victim:
        job = await queue.submit(JobSpec("echo", {"$echo": {"seconds": 600}}))
        claimed = await until_event(queue, job.id, "claimed")
        assert claimed.data["worker"] == "victim@test"
        heir = await start_worker(steered_binding(steering, accepts=("echo",)), lease_s=LEASE_S)
        victim.kill()
        (await steering.next()).complete({"by": "heir"})
        done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.worker_id, done.attempt, done.crashes) == (JobState.COMPLETED, heir.id, 2, 1)
    assert await names_of_events(queue, job.id) == [
        *("submitted", "claimed", "worker_lost", "rescued", "claimed", "completed")
    ]


async def test_what_a_worker_that_was_stopped_for_too_long_brings_is_refused(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(Steering(), "something-else"), lease_s=LEASE_S)
    async with worker_process(fast(queue), "echo", "zombie") as zombie:
        job = await queue.submit(JobSpec("echo", {"$echo": {"seconds": 1}}))
        await until_event(queue, job.id, "claimed")
        zombie.send_signal(signal.SIGSTOP)
        heir = await start_worker(steered_binding(steering, accepts=("echo",)), lease_s=LEASE_S)
        attempt = await steering.next()
        zombie.send_signal(signal.SIGCONT)
        # By its own clock, or because the queue told it, or because its result was refused.
        await line_with(zombie, "this process was stopped", "lease lost", "came too late")
        attempt.complete({"by": "heir"})
        done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    assert (done.result["data"], done.worker_id) == ({"by": "heir"}, heir.id)
    await one_outcome(queue, job.id)


class RedisServer:
    """A Redis that a test may kill and start again on its append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "always",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([find_server(), *arguments, "--save", ""], stdout=log, stderr=log)
        with Redis.from_url(self.url, protocol=2) as client:
            while not self._answers(client):
                assert self._process.poll() is None, (self.folder / "log").read_text()

    @staticmethod
    def _answers(client: "Redis") -> bool:
        try:
            return bool(client.ping())
        except (RedisConnectionError, OSError):
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    made = RedisServer(folder)
    made.start()
    yield made
    made.kill()


async def test_a_job_ends_once_though_redis_was_killed_in_the_middle(
    server: RedisServer, emp_settings: Settings, steering: Steering
):
    settings = evolve(emp_settings, redis_url=server.url, lease_s=1.0)
    async with WorkerStarter.open(settings) as start, JobQueue.connect(settings=settings) as queue:
        await start(steered_binding(steering))
        jobs = await queue.submit_many(JobSpec("steered") for _ in range(4))
        attempts = [await steering.next() for _ in jobs]
        server.kill()
        for attempt in attempts[:2]:
            attempt.complete()  # while Redis is away
        await anyio.to_thread.run_sync(server.start)
        for attempt in attempts[2:]:
            attempt.complete()
        for job in jobs:
            done = await queue.wait(job.id, timeout=15)
            assert (done.status, done.attempt, done.crashes) == (JobState.COMPLETED, 1, 0)
            await one_outcome(queue, job.id)
        # And it works on as before.
        later = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        assert (await queue.wait(later.id, timeout=15)).status is JobState.COMPLETED


async def test_a_worker_that_drains_while_redis_is_away_ends_without_an_error(
    server: RedisServer, emp_settings: Settings, steering: Steering
):
    settings = evolve(emp_settings, redis_url=server.url, lease_s=1.0)
    async with WorkerStarter.open(settings) as start:
        running = await start(steered_binding(steering))
        server.kill()
        await running.end()


async def test_those_who_wait_and_listen_are_told_after_redis_was_away(
    server: RedisServer, emp_settings: Settings, steering: Steering
):
    settings = evolve(emp_settings, redis_url=server.url, lease_s=1.0)
    seen: list[str] = []

    async with WorkerStarter.open(settings) as start, JobQueue.connect(settings=settings) as queue:
        await start(steered_binding(steering))
        job = await queue.submit(JobSpec("steered"))
        attempt = await steering.next()

        async def listen() -> None:
            async for event in queue.events(job.id):
                seen.append(event.name)  # noqa: PERF401 - what was seen so far counts, should it fail

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            server.kill()
            await anyio.to_thread.run_sync(server.start)
            attempt.complete()
            assert (await queue.wait(job.id, timeout=15)).status is JobState.COMPLETED
    assert [name for name in seen if name != "unserved"] == ["submitted", "claimed", "completed"]
