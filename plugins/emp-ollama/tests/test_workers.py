"""Jobs of a real queue on Ollama servers: spread over the servers of a worker, and over workers by what is in memory."""

from collections import Counter
from typing import Any

import anyio
from attrs import evolve
from emp_ollama.testing import FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding
from emp_core.testing.workers import WorkerStarter, bindings_of

from .rigs import Gate, hosts_of

COUNT = {"model": "tiny-chat", "prompt": "count"}
PATIENCE_S = 60.0


def ollama(environ: dict[str, str]) -> ServiceBinding:
    """The service of a worker in this environment, as ``WORKERS=ollama`` makes it."""
    [binding] = bindings_of("ollama")
    return evolve(binding, config=ServiceConfig("ollama", environ))


async def done(queue: JobQueue, jobs: list[Job]) -> list[Job]:
    return [await queue.wait(job.id, timeout=PATIENCE_S) for job in jobs]


def servers_of(jobs: list[Job]) -> Counter[str]:
    return Counter(job.result["data"]["server"] for job in jobs if job.result is not None)


async def test_jobs_of_one_worker_complete_though_one_of_its_servers_dies_and_comes_back(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async def a_moment(_: str) -> None:
        await anyio.sleep(0.002)

    async with FakeOllama(pause=a_moment) as a, FakeOllama(pause=a_moment) as b:
        await start_worker(ollama(hosts_of(a=a, b=b)))
        jobs = await queue.submit_many([JobSpec("ollama", payload=COUNT) for _ in range(80)])
        await b.until(lambda: len(b.seen) >= 10, timeout_s=PATIENCE_S)
        await b.kill()
        before = len(a.seen)
        await a.until(lambda: len(a.seen) >= before + 10, timeout_s=PATIENCE_S)
        await b.restart()
        finished = await done(queue, jobs)
        assert Counter(job.status for job in finished) == {JobState.COMPLETED: 80}
        assert servers_of(finished).keys() == {"a", "b"}


async def test_a_worker_takes_as_many_jobs_as_its_servers_have_places(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeOllama(slots=2) as a, FakeOllama() as b:
        a.hold()
        b.hold()
        await start_worker(ollama(hosts_of(a={"host": a.url, "slots": 2}, b={"host": b.url})))
        jobs = await queue.submit_many([JobSpec("ollama", payload=COUNT) for _ in range(5)])
        with anyio.fail_after(PATIENCE_S):
            await a.until_running(2)
            await b.until_running(1)
        assert (len(a.seen), len(b.seen)) == (2, 1)
        a.release()
        b.release()
        assert all(job.status is JobState.COMPLETED for job in await done(queue, jobs))


async def test_a_worker_whose_server_has_the_model_in_memory_goes_first(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeOllama() as cold, FakeOllama() as warm:
        await start_worker(ollama({"OLLAMA_HOST": warm.url}), name="warm")
        load: dict[str, Any] = {"model": "tiny-slow", "prompt": ""}
        await done(queue, [await queue.submit(JobSpec("ollama", payload=load))])
        assert warm.runners.loads == ["tiny-slow:latest"]
        await start_worker(ollama({"OLLAMA_HOST": warm.url}), name="also-warm")
        await start_worker(ollama({"OLLAMA_HOST": cold.url}), name="cold")
        for _ in range(4):
            job = await queue.submit(JobSpec("ollama", payload={"model": "tiny-slow", "prompt": "count"}))
            [finished] = await done(queue, [job])
            assert finished.status is JobState.COMPLETED
        assert not cold.runners.loads


async def test_a_job_that_needs_a_longer_context_waits_for_a_worker_that_has_it_and_says_so(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeOllama() as server:
        await start_worker(ollama({"OLLAMA_HOST": server.url, "EMP_OLLAMA_OPTIONS": '{"num_ctx": 4096}'}), name="short")
        job = await queue.submit(JobSpec("ollama", payload={**COUNT, "options": {"num_ctx": 16000}}))
        why = str(await queue.explain(job.id))
        assert "ollama_num_ctx is 4096, the job wants at least 16000" in why
        await start_worker(ollama({"OLLAMA_HOST": server.url, "EMP_OLLAMA_OPTIONS": '{"num_ctx": 32768}'}), name="long")
        [finished] = await done(queue, [job])
        assert finished.status is JobState.COMPLETED
        assert str(finished.worker_id).startswith("long")
        assert server.seen[0].body["options"] == {"num_ctx": 32768}


async def test_text_is_read_live_by_whoever_follows_the_job(queue: JobQueue, start_worker: WorkerStarter) -> None:
    gate = Gate()
    gate.stop("frame", after=4)
    async with FakeOllama(pause=gate) as server:
        await start_worker(ollama({"OLLAMA_HOST": server.url}))
        job = await queue.submit(JobSpec("ollama", payload=COUNT))
        read = ""
        with anyio.fail_after(PATIENCE_S):
            async for event in queue.events(job.id):
                if event.name == "text":
                    read += str(event.data["text"])
                    if read.endswith(" four"):
                        gate.open()
        [finished] = await done(queue, [job])
        assert finished.result is not None
        assert read.startswith(" one two three four")
        assert finished.result["data"]["text"].startswith(read)
