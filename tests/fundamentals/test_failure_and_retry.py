"""Failures are told by their type: some are tried again, others cannot be mended by another attempt."""

from emp_core import JobQueue, JobSpec
from emp_core.errors import InvalidJob, ServiceUnavailable


async def test_a_failure_that_may_pass_is_tried_again(queue: JobQueue, start_painter):
    async def paint(job, context):
        if context.attempt < 3:
            raise ServiceUnavailable("the brush is wet")
        return {"attempts": context.attempt}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", max_attempts=3))
    done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.attempt) == ("completed", 3)


async def test_a_job_fails_when_its_attempts_are_used_up(queue: JobQueue, start_painter):
    async def paint(job, context):
        raise ServiceUnavailable("the brush is wet")

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", max_attempts=2))
    done = await queue.wait(job.id, timeout=10)
    assert done.error is not None
    assert (done.status, done.attempt, done.error.code) == ("failed", 2, "service_unavailable")


async def test_a_wrong_job_fails_at_once(queue: JobQueue, start_painter):
    async def paint(job, context):
        raise InvalidJob("there is no colour called 'loud'", details={"field": "colour"})

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", max_attempts=5))
    done = await queue.wait(job.id, timeout=10)
    assert done.error is not None
    assert (done.status, done.attempt, done.error.details) == ("failed", 1, {"field": "colour"})


async def test_a_failed_job_can_be_given_a_new_run(queue: JobQueue, start_painter):
    colours = ["loud", "blue"]

    async def paint(job, context):
        colour = colours.pop(0)
        if colour == "loud":
            raise InvalidJob("there is no colour called 'loud'")
        return {"colour": colour}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    assert (await queue.wait(job.id, timeout=10)).status == "failed"
    await queue.retry(job.id)
    done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.attempt, done.error) == ("completed", 1, None)
