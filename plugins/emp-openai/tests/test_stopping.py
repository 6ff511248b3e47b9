"""Cancelled jobs are stopped on the server within a second, wherever they are: seen from the server's side."""

from typing import Any

import anyio
import pytest
from emp_openai.testing import FakeOpenAI

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import WorkerStarter

from .rig import Gate, accounts, binding, chat, environ_of

WITHIN_S = 1.0
CHAT = JobSpec("openai_text", chat("forever"))
RESPONSE = JobSpec("openai_responses", {"model": "fake", "input": "forever"})
PICTURE = JobSpec("openai_image", {"model": "fake", "prompt": "a cat", "partial_images": 3})


async def cancelled_within_a_second(queue: JobQueue, job_id: str) -> None:
    await queue.cancel(job_id)
    with anyio.fail_after(WITHIN_S):
        done = await queue.wait(job_id)
    assert done.status is JobState.CANCELLED


@pytest.mark.parametrize("spec", [CHAT, PICTURE], ids=["chat", "picture"])
async def test_a_running_request_is_closed(spec: JobSpec, queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI(pause=Gate(2)) as server:
        await start_worker(binding(environ_of(server)))
        job = await queue.submit(spec)
        await server.until(lambda: bool(server.seen) and server.seen[0].sent == 2)
        await queue.cancel(job.id)
        await server.until(lambda: server.seen[0].state == "cancelled", WITHIN_S)
        assert (await queue.wait(job.id, timeout=10)).status is JobState.CANCELLED


async def test_a_running_response_is_cancelled_on_the_server(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI(pause=Gate(2)) as server:
        await start_worker(binding(environ_of(server)))
        job = await queue.submit(RESPONSE)
        await server.until(lambda: bool(server.seen) and server.seen[0].sent == 4)
        await queue.cancel(job.id)
        await server.until(lambda: server.cancelled == list(server.responses), WITHIN_S)
        assert server.seen[0].state == "cancelled"
        assert (await queue.wait(job.id, timeout=10)).status is JobState.CANCELLED


@pytest.mark.parametrize("spec", [CHAT, PICTURE, JobSpec("openai_embeddings", {"model": "fake", "input": "a"})])
async def test_a_request_without_a_first_byte_is_closed(
    spec: JobSpec, queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeOpenAI() as server:
        server.hold()  # as while a model is loaded, or others are served: no byte comes, not even headers
        await start_worker(binding(environ_of(server)))
        job = await queue.submit(spec)
        await server.until_running(1)
        await queue.cancel(job.id)
        await server.until(lambda: server.seen[0].state == "cancelled", WITHIN_S)
        assert (await queue.wait(job.id, timeout=10)).status is JobState.CANCELLED


async def test_a_job_that_waits_for_its_turn_is_never_sent(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI() as server, FakeOpenAI() as other:
        server.hold()
        environ = accounts({"small": server, "large": other}, [{"slots": 1, "models": ["fake"]}, {"models": ["none"]}])
        await start_worker(binding(environ))
        first = await queue.submit(CHAT)
        await server.until_running(1)
        second = await queue.submit(CHAT)
        await until_told(queue, second.id, "waiting for its turn at small")
        await cancelled_within_a_second(queue, second.id)
        assert len(server.seen) == 1
        await cancelled_within_a_second(queue, first.id)


async def test_a_job_whose_account_rests_is_never_sent(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI(limit=1, reset="60s") as server, FakeOpenAI() as other:
        # The other account keeps the service as a whole from resting.
        environ = accounts({"limited": server, "other": other}, [{"models": ["fake"]}, {"models": ["none"]}])
        await start_worker(binding(environ))
        done = await queue.submit(JobSpec("openai_text", chat("hello")))
        assert (await queue.wait(done.id, timeout=10)).status is JobState.COMPLETED
        job = await queue.submit(CHAT)
        await until_told(queue, job.id, "rate limit")
        await cancelled_within_a_second(queue, job.id)
        assert len(server.seen) == 1


async def until_told(queue: JobQueue, job_id: str, words: str) -> None:
    """Wait until a job says what it waits for."""
    with anyio.fail_after(10):
        async for event in queue.events(job_id):
            told: Any = event.data.get("message") or ""
            if words in str(told):
                return
    raise AssertionError(f"{job_id} ended and never said {words!r}")
