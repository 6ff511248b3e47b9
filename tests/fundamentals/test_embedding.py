"""A worker is an object: it runs inside any program that has an event loop, and leaves signals and logging alone."""

import signal

import anyio

from emp_core import JobQueue, JobSpec, Worker


async def test_a_worker_runs_beside_other_tasks(queue: JobQueue, monkeypatch):
    settings = queue.settings
    environ = {
        "WORKERS": "echo",
        "HUB_REDIS_URL": settings.redis_url or "",
        "EMP_NAMESPACE": settings.namespace,
        "EMP_DATA_DIR": str(settings.data_dir),
    }
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    # The worker around the group: it is closed when the tasks that use it have ended.
    async with Worker.from_env(environ) as worker, anyio.create_task_group() as ours:
        await ours.start(worker.run)
        job = await queue.submit(JobSpec("echo", {"hello": 1}))
        done = await queue.wait(job.id, timeout=10)
        assert done.result is not None
        assert done.result["data"] == {"hello": 1}
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        worker.drain()
    assert await queue.workers() == []


async def test_a_worker_that_is_cancelled_gives_its_jobs_back(queue: JobQueue, start_painter):
    begun = anyio.Event()

    async def paint(job, context):
        begun.set()
        await anyio.sleep_forever()

    painter = await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    await begun.wait()
    painter.scope.cancel()
    await painter.until_ended()
    back = await queue.get(job.id)
    assert (back.status, back.attempt) == ("pending", 0)
