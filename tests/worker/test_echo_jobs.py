"""A worker and the queue, with nothing in between replaced."""

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import RunningWorker


async def test_a_job_goes_the_whole_way(queue: JobQueue, worker: RunningWorker):
    job = await queue.submit(JobSpec("echo", {"hello": "wörld", "n": [1, 2.5, None, True]}))
    done = await queue.wait(job.id, timeout=10)
    assert done.status is JobState.COMPLETED
    assert done.result == {"success": True, "data": {"hello": "wörld", "n": [1, 2.5, None, True]}, "artifacts": []}
    assert (done.attempt, done.crashes, done.progress, done.worker_id) == (1, 0, 100.0, worker.id)
