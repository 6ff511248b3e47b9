"""Following a job to its end."""

import anyio

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import RunningWorker


async def test_what_is_noted_after_the_outcome_keeps_nobody_waiting(queue: JobQueue, worker: RunningWorker):
    """A submitter that found nobody serving notes so, and the job may have been done meanwhile."""
    job = await queue.submit(JobSpec("echo"))
    await queue.wait(job.id, timeout=10)
    await queue._open.calls.run("note", {"events_max": 1000, "id": job.id, "name": "unserved", "fragment": ""})
    with anyio.fail_after(4):
        names = [event.name async for event in queue.events(job.id)]
    assert names[-2:] == ["completed", "unserved"]


async def test_a_finished_job_is_followed_at_once_after_connecting(queue: JobQueue, worker: RunningWorker):
    job = await queue.submit(JobSpec("echo"))
    await queue.wait(job.id, timeout=10)
    async with JobQueue.connect(settings=queue.settings) as other:
        with anyio.fail_after(2):  # less than a subscription that was missed is waited for
            assert (await other.wait(job.id)).status == "completed"
