"""What a worker is told of its jobs through its inbox."""

import pytest

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import RunningWorker, WorkerStarter

from .waiting import until


async def tell(queue: JobQueue, running: RunningWorker, message: str) -> None:
    """Send a message, and wait until the worker has read it."""
    inbox = queue.keys.worker(running.id, "inbox")

    async def is_read() -> bool:
        return not await queue.client.exists(inbox)

    await queue.client.rpush(inbox, message)
    await until(is_read)


async def token_of(queue: JobQueue, job_id: str) -> str:
    return str(await queue.client.hget(queue.keys.job(job_id), "token"))


async def test_what_cancels_an_earlier_run_of_a_job_leaves_this_one_alone(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """The message was under way while the job was cancelled, tried again, and taken by the same worker."""
    running = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await tell(queue, running, f"cancel {job.id} of-an-earlier-run")
    other = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    await queue.wait(other.id, timeout=10)
    attempt.complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
    assert (steering.cancels, attempt.cancelled) == ([], False)


@pytest.mark.parametrize("program", ["this version", "an older one, which tells no token"])
async def test_a_job_is_stopped_by_the_message(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, program: str
):
    running = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    token = f" {await token_of(queue, job.id)}" if program == "this version" else ""
    await tell(queue, running, f"cancel {job.id}{token}")
    await attempt.until_ended()
    assert (steering.cancels, attempt.cancelled) == ([job.id], True)
