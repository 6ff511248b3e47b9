"""A job may begin later, must be done by its deadline, and each of its attempts may take only so long."""

from datetime import UTC, datetime, timedelta

import anyio

from emp_core import JobQueue, JobSpec

A_MOMENT = timedelta(milliseconds=200)


async def test_a_job_begins_no_sooner_than_it_may(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {}

    await start_painter(paint)
    start_at = datetime.now(UTC) + A_MOMENT
    job = await queue.submit(JobSpec("painter", start_at=start_at))
    assert job.status == "scheduled"
    done = await queue.wait(job.id, timeout=10)
    assert done.started_at is not None
    assert done.started_at >= start_at


async def test_a_job_that_nobody_began_fails_at_its_deadline(queue: JobQueue, worker):
    """The worker serves something else; it keeps house all the same."""
    job = await queue.submit(JobSpec("painter", deadline_at=datetime.now(UTC) + A_MOMENT))
    done = await queue.wait(job.id, timeout=10)
    assert done.error is not None
    assert (done.status, done.error.code) == ("failed", "deadline_exceeded")


async def test_a_job_that_runs_is_stopped_at_its_deadline(queue: JobQueue, start_painter):
    async def paint(job, context):
        await anyio.sleep_forever()

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", deadline_at=datetime.now(UTC) + 2 * A_MOMENT))
    done = await queue.wait(job.id, timeout=10)
    assert done.error is not None
    assert (done.status, done.error.code, done.attempt) == ("failed", "deadline_exceeded", 1)


async def test_an_attempt_that_takes_too_long_is_stopped_and_tried_again(queue: JobQueue, start_painter):
    async def paint(job, context):
        if context.attempt == 1:
            await anyio.sleep_forever()
        return {}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", timeout_s=0.2))
    done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.attempt) == ("completed", 2)
