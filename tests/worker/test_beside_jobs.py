"""What connectors do beside their jobs: look after something, change how many jobs they take, tell of trouble."""

import anyio
import pytest

from emp_core.connectors.base import ServiceInfo
from emp_core.errors import AuthenticationFailed, RateLimited
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import until_event


async def test_a_connector_looks_after_something_while_it_is_connected(
    start_worker: WorkerStarter, steering: Steering
) -> None:
    began, ended = anyio.Event(), anyio.Event()

    async def watch() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    steering.watch = watch
    worker = await start_worker(steered_binding(steering))
    with anyio.fail_after(10):
        await began.wait()
        assert not ended.is_set()
        await worker.end()
        await ended.wait()


async def test_what_it_looks_after_may_fail_and_jobs_go_on(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    failed = anyio.Event()

    async def watch() -> None:
        failed.set()
        raise AuthenticationFailed("no")

    steering.watch = watch
    await start_worker(steered_binding(steering))
    await failed.wait()
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status == "completed"


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_connector_may_take_more_jobs_than_before(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, version: str
) -> None:
    """Whether or not something else has changed, too."""
    steering.jobs_at_once = 1
    running = await start_worker(steered_binding(steering))
    service = running.worker._offering.services["steered"]
    await queue.submit_many([JobSpec("steered") for _ in range(3)])
    first = await steering.next()
    steering.jobs_at_once, steering.info = 3, ServiceInfo("steered", version)
    service._look.set()  # its health is due
    with anyio.fail_after(5):  # sooner than it is due again
        others = [await steering.next(), await steering.next()]
    offered = running.worker.capabilities().services["steered"].slots
    assert offered == 3
    for attempt in (first, *others):
        attempt.complete()


async def test_what_the_operator_says_of_jobs_at_once_stays(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    running = await start_worker(steered_binding(steering), concurrency=("steered=2",))
    steering.jobs_at_once = 9
    service = running.worker._offering.services["steered"]
    service._look.set()
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    await queue.wait(job.id, timeout=10)
    assert service.slots.capacity == 2


async def test_trouble_that_a_job_survives_stands_in_its_events(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await attempt.context.warn("gpu1 went away; begun again at gpu2")
    warned = await until_event(queue, job.id, "warned")
    assert warned.data == {"message": "gpu1 went away; begun again at gpu2"}
    attempt.complete()
    assert (await queue.wait(job.id, timeout=10)).status == "completed"


async def test_a_connector_that_rests_gets_no_jobs_until_it_has_rested(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    running = await start_worker(steered_binding(steering))
    service = running.worker._offering.services["steered"]
    service.connector.rest(0.5, "the rate limit is met")
    assert service.offer.withdrawn == "the rate limit is met"
    began = anyio.current_time()
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert anyio.current_time() - began >= 0.4
    assert (await queue.wait(job.id, timeout=10)).status == "completed"


async def test_a_service_that_is_busy_rests_for_as_long_as_it_said(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    running = await start_worker(steered_binding(steering))
    service = running.worker._offering.services["steered"]
    job = await queue.submit(JobSpec("steered", max_attempts=1))
    (await steering.next()).fail(RateLimited("slow down", retry_after_s=60.0))
    assert (await queue.wait(job.id, timeout=10)).status == "failed"
    assert (service.offer.withdrawn, service.free) == ("slow down", 0)
