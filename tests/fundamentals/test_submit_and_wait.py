"""A job is put into the queue, a worker runs it, and whoever waits for it gets it back with its result."""

from emp_core import JobQueue, JobSpec


async def test_a_submitted_job_comes_back_with_its_result(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {"picture of": job.payload["subject"]}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter", {"subject": "a lake"}))
    done = await queue.wait(job.id, timeout=10)
    assert done.status == "completed"
    assert done.result == {"success": True, "data": {"picture of": "a lake"}, "artifacts": []}


async def test_a_job_waits_for_a_worker_however_long_that_takes(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {}

    job = await queue.submit(JobSpec("painter"))
    assert (await queue.get(job.id)).status == "pending"
    await start_painter(paint)
    assert (await queue.wait(job.id, timeout=10)).status == "completed"


async def test_many_jobs_are_submitted_at_once_and_come_back_in_order(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {"n": job.payload}

    await start_painter(paint)
    jobs = await queue.submit_many(JobSpec("painter", n) for n in range(20))
    assert [job.payload for job in jobs] == list(range(20))
    done = [await queue.wait(job.id, timeout=10) for job in jobs]
    assert [job.result["data"]["n"] for job in done if job.result] == list(range(20))


async def test_what_a_job_puts_out_is_kept_in_the_store_and_referred_to(queue: JobQueue, start_painter):
    async def paint(job, context):
        picture = await context.save(b"PNG", "lake.png", "image/png")
        return {"url": picture.url}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    assert done.result["data"]["url"].startswith("file:///")
