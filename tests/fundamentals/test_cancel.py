"""A job can be cancelled while it waits and while it runs; what is done stays done."""

import anyio
import pytest

from emp_core import JobQueue, JobSpec
from emp_core.errors import IllegalTransition


async def test_a_waiting_job_is_cancelled_at_once(queue: JobQueue):
    job = await queue.submit(JobSpec("painter"))
    cancelled = await queue.cancel(job.id, reason="not needed any more")
    assert cancelled.status == "cancelled"


async def test_a_running_job_is_stopped_by_its_worker(queue: JobQueue, start_painter):
    begun, stopped = anyio.Event(), anyio.Event()

    async def paint(job, context):
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()  # here a connector stops the service's work

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    await begun.wait()
    assert (await queue.cancel(job.id)).cancel_requested
    assert (await queue.wait(job.id, timeout=10)).status == "cancelled"
    assert stopped.is_set()


async def test_a_job_that_is_done_cannot_be_cancelled(queue: JobQueue, start_painter):
    async def paint(job, context):
        return {}

    await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    await queue.wait(job.id, timeout=10)
    with pytest.raises(IllegalTransition, match="is completed already"):
        await queue.cancel(job.id)
