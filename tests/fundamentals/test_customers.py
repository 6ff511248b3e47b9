"""Customers share workers by turns, and none has more jobs running than it may."""

import anyio

from emp_core import JobQueue, JobSpec


async def test_the_single_job_of_one_customer_does_not_wait_for_the_many_of_another(queue: JobQueue, start_painter):
    ran: list[str] = []

    async def paint(job, context):
        ran.append(job.customer_id)
        return {}

    many = await queue.submit_many(JobSpec("painter", customer_id="many") for _ in range(100))
    single = await queue.submit(JobSpec("painter", customer_id="single"))
    await start_painter(paint, concurrency=("1",))
    await queue.wait(single.id, timeout=10)
    assert ran.index("single") <= 1
    for job in many:
        await queue.wait(job.id, timeout=10)


async def test_a_customer_runs_no_more_jobs_at_once_than_its_cap(queue: JobQueue, start_painter):
    running, most, both = 0, 0, anyio.Event()

    async def paint(job, context):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            both.set()
        await both.wait()
        running -= 1
        return {}

    await start_painter(paint, concurrency=("8",), customer_cap=2)
    jobs = await queue.submit_many(JobSpec("painter", customer_id="eager") for _ in range(10))
    for job in jobs:
        assert (await queue.wait(job.id, timeout=10)).status == "completed"
    assert most == 2


async def test_a_worker_may_be_kept_for_some_customers(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {}

    await start_painter(paint, customers_allow=("ours",))
    theirs = await queue.submit(JobSpec("painter", customer_id="theirs"))
    ours = await queue.submit(JobSpec("painter", customer_id="ours"))
    assert (await queue.wait(ours.id, timeout=10)).status == "completed"
    assert (await queue.get(theirs.id)).status == "pending"
