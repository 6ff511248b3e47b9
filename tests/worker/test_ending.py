"""A worker that ends: drained, stopped or cancelled, it loses no job on the way."""

import logging

import anyio
import pytest

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.links import _Link
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import names_of_events, until, until_event


@pytest.fixture
def other_steering() -> Steering:
    return Steering()


async def test_a_drained_worker_lets_its_jobs_end_and_takes_no_more(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering), grace_s=30.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    running.worker.drain("test")
    later = await queue.submit(JobSpec("steered"))
    attempt.complete()
    await running.until_ended()
    assert (await queue.get(job.id)).status is JobState.COMPLETED
    assert (await queue.get(later.id)).status is JobState.PENDING
    assert await queue.workers() == []


async def test_a_worker_that_drains_for_longer_than_a_lease_keeps_its_jobs_to_their_end(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, other_steering: Steering
):
    lease_s = 1.5
    running = await start_worker(steered_binding(steering), lease_s=lease_s, grace_s=60.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await start_worker(steered_binding(other_steering), lease_s=lease_s, poll_s=0.1)
    await queue.drain_worker(running.id)
    await until(lambda: withdrawn(queue, running.id))
    ends = await lease_ends(queue, job.id)

    async def drained_for_longer() -> bool:
        return await lease_ends(queue, job.id) > ends + lease_s

    await until(drained_for_longer)
    attempt.complete({"by": "the one that drained"})
    await running.until_ended()
    done = await queue.get(job.id)
    assert (done.status, done.attempt, done.crashes, done.returned) == (JobState.COMPLETED, 1, 0, 0)
    assert (done.worker_id, (done.result or {})["data"]) == (running.id, {"by": "the one that drained"})
    assert other_steering.attempts == []


async def test_a_cancel_reaches_a_worker_that_drains(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    running = await start_worker(steered_binding(steering), lease_s=60.0, grace_s=60.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    running.worker.drain()
    await queue.cancel(job.id)
    await running.until_ended()
    assert attempt.cancelled
    assert (await queue.get(job.id)).status is JobState.CANCELLED


async def withdrawn(queue: JobQueue, worker_id: str) -> bool:
    [found] = [view for view in await queue.workers() if view.id == worker_id]
    return found.capabilities.services["steered"].withdrawn == "the worker is draining"


async def lease_ends(queue: JobQueue, job_id: str) -> float:
    """When the job's lease ends, in seconds of Redis's clock."""
    return float(await queue.client.zscore(queue.keys.index("active"), job_id)) / 1e6


@pytest.mark.parametrize(
    "how", ["grace over", "stopped", "second signal", "cancelled from outside", "told by its inbox"]
)
async def test_jobs_that_do_not_end_are_given_back_uncounted(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, how: str
):
    running = await start_worker(
        steered_binding(steering), grace_s=0.05 if how in ("grace over", "told by its inbox") else 60.0
    )
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    match how:
        case "grace over":
            running.worker.drain()
        case "stopped":
            running.worker.stop()
        case "second signal":
            running.worker.drain()
            running.worker.stop()
        case "cancelled from outside":
            running.scope.cancel()
        case "told by its inbox":
            await queue.drain_worker(running.id)
    await running.until_ended()
    assert attempt.cancelled
    back = await queue.get(job.id)
    assert (back.status, back.attempt, back.crashes) == ("pending", 0, 0)
    assert (await names_of_events(queue, job.id))[-1] == "released"


async def test_an_order_to_drain_is_not_for_another_process_that_has_the_name_now(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    inbox = queue.keys.worker("same@test", "inbox")
    await queue.client.set(queue.keys.worker("same@test", "heartbeat"), "dead", px=300)
    await queue.drain_worker("same@test")
    await start_worker(steered_binding(steering), name="same", lease_s=0.5)

    async def read() -> bool:
        return not await queue.client.exists(inbox)

    await until(read)
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


async def test_a_service_that_takes_its_time_to_stop_does_not_keep_its_job(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering), grace_s=0.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    attempt.linger = anyio.Event()
    running.worker.drain()
    try:
        await until_event(queue, job.id, "released")
        assert not running.ended.is_set()
    finally:
        attempt.linger.set()
    await running.until_ended()
    assert (await names_of_events(queue, job.id)).count("released") == 1


async def test_a_claim_that_is_under_way_when_the_worker_drains_loses_nothing(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, monkeypatch: pytest.MonkeyPatch
):
    running = await start_worker(steered_binding(steering))
    claimed = anyio.Event()
    on_its_way: list[tuple[_Link, bytes]] = []
    read = _Link.data_received

    def late(link: _Link, data: bytes) -> None:
        if b"service_required" in data and not claimed.is_set():
            on_its_way.append((link, data))
            claimed.set()
        else:
            read(link, data)

    monkeypatch.setattr(_Link, "data_received", late)
    job = await queue.submit(JobSpec("steered"))
    with anyio.fail_after(10):
        await claimed.wait()
    running.worker.stop()
    await anyio.wait_all_tasks_blocked()
    read(*on_its_way[0])
    await running.until_ended()
    assert (await queue.get(job.id)).status is JobState.PENDING
    assert (await names_of_events(queue, job.id))[-1] == "released"


async def test_a_connector_that_fails_to_disconnect_does_not_fail_the_worker(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.disconnect_error = RuntimeError("no such socket")
    running = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    await steering.next()
    await running.end()
    assert (await queue.get(job.id)).status is JobState.PENDING


@pytest.mark.parametrize("how", ["drained", "cancelled from outside"])
async def test_the_last_word_of_a_worker_is_that_it_ended(
    start_worker: WorkerStarter, caplog: pytest.LogCaptureFixture, how: str
):
    caplog.set_level(logging.INFO)
    running = await start_worker()
    if how == "drained":
        running.worker.drain()
    else:
        running.scope.cancel()
    await running.until_ended()
    last = [record.getMessage() for record in caplog.records if record.name == "emp.worker"][-1]
    assert "worker ended" in last
    assert running.id in last


async def test_a_worker_may_be_cancelled_before_it_began(start_worker: WorkerStarter):
    running = await start_worker()
    running.scope.cancel()
    await running.until_ended()
