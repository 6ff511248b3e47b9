"""What a connector tells of a job enters Redis without the secrets that stand in it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from emp_core.connectors.base import Health, Refusal
from emp_core.errors import AuthenticationFailed, EmpError, JobFailed
from emp_core.jobs.codec import as_shown
from emp_core.jobs.model import JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import until, until_event

SECRET = "sk-geheim-123456789"


@pytest.fixture
def all_there_is(queue: JobQueue) -> Callable[[], Awaitable[str]]:
    """Gives everything that stands in Redis, as text."""

    async def read() -> str:
        found: list[Any] = []
        async for key in queue.client.scan_iter(match=f"{queue.settings.namespace}*", count=1000):
            match await queue.client.type(key):
                case "hash":
                    found.append(await queue.client.hgetall(key))
                case "list":
                    found.append(await queue.client.lrange(key, 0, -1))
                case "stream":
                    found.append(await queue.client.xrange(key))
                case "string":
                    found.append(await queue.client.get(key))
        return json.dumps(found)

    return read


ERRORS = {
    "message": JobFailed(f"the server said: Authorization: Bearer {SECRET}"),
    "address": RuntimeError(f"GET https://user:{SECRET}@host/x?api_key={SECRET}"),
    "details": JobFailed("no", details={"api_key": SECRET, "headers": {"Authorization": SECRET, "n": 1}}),
    "texts in details": JobFailed("no", details={"said": [f"access_token={SECRET}"]}),
    "details that are no JSON": JobFailed("no", details={"cookie": SECRET, "x": object(), "y": f"token={SECRET}"}),
    "long details": JobFailed("no", details={"api_key": SECRET, "said": f"token={SECRET} " * 4000}),
    "not for us": AuthenticationFailed(f"the key was refused: api_key={SECRET}"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
async def test_no_error_brings_a_secret_into_redis(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, all_there_is, error: Exception
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", max_attempts=1))
    (await steering.next()).fail(error)
    await until_event(queue, job.id, "failed", "released")
    if isinstance(error, AuthenticationFailed):  # the service says why it takes no jobs
        await until(lambda: withdrawn(queue))
    kept = await all_there_is()
    assert "(hidden)" in kept
    assert SECRET not in kept
    found = await queue.get(job.id)
    assert found.error is not None
    assert found.error.code == (error.code if isinstance(error, EmpError) else "unexpected")


async def withdrawn(queue: JobQueue) -> bool:
    [view] = await queue.workers()
    return view.capabilities.services["steered"].withdrawn is not None


async def test_what_is_no_secret_of_an_error_is_kept_as_it_is(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    details = {"node": "7", "inputs": {"seed": [1, 2.5, None, True]}, "max_tokens": 5, "api_key": SECRET}
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", max_attempts=1))
    (await steering.next()).fail(JobFailed("node 7 failed", details=details))
    failed = await queue.wait(job.id, timeout=10)
    assert failed.error is not None
    assert (failed.error.message, failed.error.details) == ("node 7 failed", {**details, "api_key": "(hidden)"})


async def test_neither_a_warning_nor_a_word_on_progress_brings_a_secret_into_redis(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, all_there_is
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await attempt.context.warn(f"https://host/?token={SECRET} went away")
    await attempt.context.progress(0.5, f"asking with api_key={SECRET}")

    async def told() -> bool:
        return (await queue.get(job.id)).progress == 50

    await until(told)
    kept = await all_there_is()
    assert "https://host/?token=(hidden) went away" in kept
    assert "asking with api_key=(hidden)" in kept
    assert SECRET not in kept
    attempt.complete()
    await queue.wait(job.id, timeout=10)


async def test_neither_a_refusal_nor_a_word_on_health_brings_a_secret_into_redis(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, all_there_is
):
    steering.refusal = Refusal(f"not with token={SECRET}")
    running = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    await until_event(queue, job.id, "released")
    steering.health = Health(ok=False, reason=f"https://user:{SECRET}@host does not answer")
    running.worker._offering.services["steered"]._look.set()
    await until(lambda: withdrawn(queue))
    kept = await all_there_is()
    assert "not with token=(hidden)" in kept
    assert "https://(hidden)@host does not answer" in kept
    assert SECRET not in kept


async def test_a_program_reads_the_result_of_its_job_as_it_is_and_nobody_is_shown_the_secrets_in_it(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    data, usage = {"url": f"https://u:{SECRET}@host/x", "text": f"token={SECRET}", "n": 1}, {"token": SECRET, "ms": 2}
    await start_worker(steered_binding(steering))
    spec = JobSpec("steered", {"note": f"token={SECRET}"}, labels={"token": SECRET, "team": "art"})
    job = await queue.submit(spec)
    (await steering.next()).complete(result=JobResult(data=data, usage=usage))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    assert (done.result["data"], done.usage, done.labels) == (data, usage, spec.labels)
    shown = as_shown(done)
    assert shown["result"]["data"] == {"url": "https://(hidden)@host/x", "text": "token=(hidden)", "n": 1}
    assert shown["usage"] == {"token": "(hidden)", "ms": 2}
    assert shown["labels"] == {"token": "(hidden)", "team": "art"}
    assert SECRET not in json.dumps(shown)
    assert SECRET not in repr(done) + repr(spec) + repr(await queue.explain(job.id))
