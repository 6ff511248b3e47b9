"""A worker that is cancelled, as by the service that it is embedded in."""

import anyio

from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.worker.worker import Worker


async def test_a_cancelled_worker_gives_its_jobs_back_at_once(queue: JobQueue, emp_settings: Settings):
    environ = {
        "HUB_REDIS_URL": emp_settings.redis_url or "",
        "EMP_NAMESPACE": emp_settings.namespace,
        "EMP_DATA_DIR": str(emp_settings.data_dir),
        "WORKERS": "echo",
    }
    job = await queue.submit(JobSpec("echo", {"$echo": {"seconds": 600, "steps": 2}}))
    async with Worker.from_env(environ) as worker, anyio.create_task_group() as group:
        await group.start(worker.run)
        async for event in queue.events(job.id):
            if event.name == "claimed":
                break
        began_s = anyio.current_time()
        group.cancel_scope.cancel()
    assert anyio.current_time() - began_s < 4, "it waited for what nobody records any more"
    found = await queue.get(job.id)
    assert (found.status, found.attempt) == ("pending", 0)
    assert await queue.workers() == []
    await queue.cancel(job.id)
