"""A job tells how far it is while it runs; whoever follows it sees that, and all that happened before."""

import anyio

from emp_core import JobQueue, JobSpec


async def test_progress_is_seen_while_the_job_runs(queue: JobQueue, start_painter):
    half_seen = anyio.Event()

    async def paint(job, context):
        await context.progress(0.5, "the sky is done")
        await half_seen.wait()
        return {}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    seen = []
    async for event in queue.events(job.id):
        seen.append(event.name)
        if event.name == "progress":
            assert (event.data["progress"], event.data["message"]) == (50.0, "the sky is done")
            half_seen.set()
        elif event.name == "claimed" and (await queue.get(job.id)).progress == 50:
            half_seen.set()  # told before we began to listen
    assert seen[-1] == "completed"


async def test_what_happened_can_be_read_afterwards(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {}

    worker = await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    await queue.wait(job.id, timeout=10)
    history = {event.name: event for event in await queue.history(job.id)}
    assert {"submitted", "claimed", "completed"} <= history.keys()
    assert history["claimed"].data["worker"] == worker.id
    assert history["submitted"].at <= history["claimed"].at <= history["completed"].at
