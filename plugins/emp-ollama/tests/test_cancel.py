"""A cancelled job's connection is closed within a second, as the server sees it: whatever the job was doing there."""

from collections.abc import Mapping

import anyio
import pytest
from attrs import evolve
from emp_ollama.testing import FakeModel, FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding
from emp_core.testing.workers import WorkerStarter, bindings_of

from .rigs import Gate

COUNT = {"model": "tiny-chat", "prompt": "count"}
OTHER = {"model": "tiny-slow", "prompt": "count"}
VECTOR = {"model": "tiny-chat", "input": "a"}
AT_ONCE_S = 1.0


def at(server: FakeOllama, environ: Mapping[str, str] | None = None) -> ServiceBinding:
    """A worker's service at this server."""
    [binding] = bindings_of("ollama")
    return evolve(binding, config=ServiceConfig("ollama", {"OLLAMA_HOST": server.url, **(environ or {})}))


async def assert_stopped_at_once(queue: JobQueue, job: Job, server: FakeOllama, request: int) -> None:
    """Cancel a job, and see that its request ends on the server."""
    await queue.cancel(job.id)
    await server.until(lambda: server.seen[request].state == "cancelled", timeout_s=AT_ONCE_S)
    assert (await queue.wait(job.id, timeout=10)).status is JobState.CANCELLED


async def test_a_job_that_runs_is_stopped(queue: JobQueue, start_worker: WorkerStarter) -> None:
    gate = Gate()
    gate.stop("frame", after=3)
    async with FakeOllama(pause=gate) as server:
        await start_worker(at(server))
        job = await queue.submit(JobSpec("ollama", payload=COUNT))
        await server.until(lambda: bool(server.seen) and server.seen[0].frames == 3)
        await assert_stopped_at_once(queue, job, server, 0)
        assert server.seen[0].frames == 3
        gate.open()
        after = await queue.submit(JobSpec("ollama", payload=COUNT))
        assert (await queue.wait(after.id, timeout=10)).status is JobState.COMPLETED, "the model's slot is free again"


async def test_a_job_that_waits_for_its_turn_is_stopped_and_the_one_before_it_goes_on(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    gate = Gate()
    gate.stop("frame", after=3)
    async with FakeOllama(pause=gate) as server:
        await start_worker(at(server), concurrency=("ollama=2",))
        first = await queue.submit(JobSpec("ollama", payload=COUNT))
        await server.until(lambda: bool(server.seen) and server.seen[0].frames == 3)
        second = await queue.submit(JobSpec("ollama", payload=COUNT))
        await server.until(lambda: len(server.seen) == 2 and server.seen[1].state == "waiting")
        await assert_stopped_at_once(queue, second, server, 1)
        assert server.seen[1].frames == 0
        gate.open()
        assert (await queue.wait(first.id, timeout=10)).status is JobState.COMPLETED


async def test_a_job_whose_model_is_being_loaded_is_stopped_and_the_load_with_it(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    gate = Gate()
    gate.stop("load")
    async with FakeOllama(pause=gate) as server:
        await start_worker(at(server))
        job = await queue.submit(JobSpec("ollama", payload=OTHER))
        await server.until(lambda: bool(server.seen) and server.seen[0].state == "loading")
        await assert_stopped_at_once(queue, job, server, 0)
        gate.open()
        assert not server.runners.loads


async def test_a_job_that_makes_vectors_is_stopped(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOllama({"tiny-chat:latest": FakeModel(capabilities=("embedding",))}) as server:
        server.hold()
        await start_worker(at(server))
        job = await queue.submit(JobSpec("embeddings", payload=VECTOR))
        await server.until_running(1)
        await assert_stopped_at_once(queue, job, server, 0)


async def test_a_job_whose_model_is_being_pulled_is_stopped_and_the_next_pull_goes_on_where_it_was(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    gate = Gate()
    gate.stop("pull", after=3)
    async with FakeOllama(registry={"big:latest": FakeModel()}, pause=gate) as server:
        await start_worker(at(server, {"EMP_OLLAMA_PULL": "true"}))
        job = await queue.submit(JobSpec("ollama", payload={"model": "big", "prompt": "count"}))
        await server.until(lambda: gate.passed.count("pull") == 4)
        await queue.cancel(job.id)
        await server.until(lambda: server.pulling == 0, timeout_s=AT_ONCE_S)
        got = server.pulled_bytes["big:latest"]
        assert 0 < got < server.registry["big:latest"].size_bytes
        gate.open()
        again = await queue.submit(JobSpec("ollama", payload={"model": "big", "prompt": "count"}))
        assert (await queue.wait(again.id, timeout=10)).status is JobState.COMPLETED
        assert gate.passed.count("pull") == 11, "ten steps in all, one of them twice"


@pytest.mark.parametrize("task", [COUNT, {**COUNT, "prompt": "forever", "options": {"num_predict": 100_000}}])
async def test_a_worker_that_ends_gives_its_job_back_and_leaves_nothing_running(
    task: dict[str, object], queue: JobQueue, start_worker: WorkerStarter
) -> None:
    gate = Gate()
    gate.stop("frame", after=2)
    async with FakeOllama(pause=gate) as server:
        worker = await start_worker(at(server), grace_s=0.0)
        job = await queue.submit(JobSpec("ollama", payload=task))
        await server.until(lambda: bool(server.seen) and server.seen[0].frames == 2)
        with anyio.fail_after(10):
            await worker.end()
        await server.until(lambda: server.seen[0].state == "cancelled", timeout_s=AT_ONCE_S)
        assert (await queue.get(job.id)).status is JobState.PENDING
        await queue.cancel(job.id)
