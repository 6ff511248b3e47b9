"""Priority is a head start: each point counts as if the job had been submitted a while earlier."""

from attrs import evolve

from emp_core import JobQueue, JobSpec


async def order(queue: JobQueue, start_painter) -> list[str]:
    """The ids of the waiting jobs in the order in which one worker with one slot runs them."""
    ran: list[str] = []

    async def paint(job, context):
        ran.append(job.id)
        return {}

    waiting = (await queue.jobs(["pending"])).copy()  # type: ignore[list-item]
    await start_painter(paint, concurrency=("1",))
    for job in waiting:
        await queue.wait(job.id, timeout=10)
    return ran


async def test_more_priority_is_sooner_and_otherwise_the_first_is_first(queue: JobQueue, start_painter):
    for name, priority in (("first", 50), ("second", 50), ("urgent", 90), ("some day", 0)):
        await queue.submit(JobSpec("painter", id=name.replace(" ", "-"), priority=priority))
    assert await order(queue, start_painter) == ["urgent", "first", "second", "some-day"]


async def test_a_job_that_waited_long_enough_goes_before_an_urgent_one(queue: JobQueue, start_painter):
    """With a minute per point, the settings' default, nothing waits for ever; here a point is a microsecond."""
    async with JobQueue.connect(settings=evolve(queue.settings, priority_step_s=1e-6)) as impatient:
        await impatient.submit(JobSpec("painter", id="patient", priority=0))
        await impatient.submit(JobSpec("painter", id="urgent", priority=1))
    assert await order(queue, start_painter) == ["patient", "urgent"]


async def test_the_priority_of_a_waiting_job_can_be_changed(queue: JobQueue, start_painter):
    await queue.submit(JobSpec("painter", id="first"))
    await queue.submit(JobSpec("painter", id="second"))
    await queue.set_priority("second", 99)
    assert await order(queue, start_painter) == ["second", "first"]
