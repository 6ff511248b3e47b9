"""A lane that this worker cannot read, because something newer made it, is left to others."""

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import WorkerStarter

STRANGE = [
    "no json",
    "[]",
    '{"service":"echo","tempo":"presto"}',
    '{"models":[7],"service":"echo"}',
    '{"models":["a"]}',
]


async def make_strange(queue: JobQueue) -> None:
    """Open such lanes as the scripts open lanes."""
    for number, text in enumerate(STRANGE):
        lane = f"echo@{number:012}"
        await queue.client.hset(queue.keys.fixed("lanes"), lane, text)
        await queue.client.zadd(queue.keys.fixed("lanes_empty"), {lane: 9e15})
        await queue.client.incr(queue.keys.fixed("lanes_version"))


async def test_a_worker_starts_and_serves_what_it_can_read(queue: JobQueue, start_worker: WorkerStarter):
    await make_strange(queue)
    await start_worker()
    job = await queue.submit(JobSpec("echo"))
    assert (await queue.wait(job.id, timeout=10)).status == "completed"


async def test_a_worker_that_runs_goes_on(queue: JobQueue, start_worker: WorkerStarter):
    worker = await start_worker()
    await make_strange(queue)
    for number in range(len(STRANGE)):
        await queue.client.rpush(queue.keys.worker(worker.id, "inbox"), f"lane echo@{number:012}")
    job = await queue.submit(JobSpec("echo", requirements={"exclude": {"slow": 1}}))
    assert (await queue.wait(job.id, timeout=10)).status == "completed"
    assert not worker.ended.is_set()
