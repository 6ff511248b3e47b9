"""A worker that shuts down takes no more jobs, lets the running ones end, and gives back what does not end in time."""

import anyio

from emp_core import JobQueue, JobSpec


async def test_a_running_job_may_end(queue: JobQueue, start_painter):
    begun, dry = anyio.Event(), anyio.Event()

    async def paint(job, context):
        begun.set()
        await dry.wait()
        return {}

    painter = await start_painter(paint, grace_s=30.0)
    job = await queue.submit(JobSpec("painter"))
    await begun.wait()
    painter.worker.drain()
    dry.set()
    await painter.until_ended()
    assert (await queue.get(job.id)).status == "completed"


async def test_a_job_that_does_not_end_goes_to_another_worker_and_loses_no_attempt(queue: JobQueue, start_painter):
    begun = anyio.Event()

    async def paint_for_ever(job, context):
        begun.set()
        await anyio.sleep_forever()

    async def paint(job, context):
        return {}

    painter = await start_painter(paint_for_ever, grace_s=0.1)
    job = await queue.submit(JobSpec("painter"))
    await begun.wait()
    painter.worker.drain("the machine is taken away")
    await painter.until_ended()
    other = await start_painter(paint)
    done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.attempt, done.worker_id) == ("completed", 1, other.id)
