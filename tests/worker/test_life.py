"""A worker at work: what it offers and claims, and what reaches the jobs that it has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from emp_core.connectors.base import Health
from emp_core.errors import ConfigError, ServiceUnavailable
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.client import NotReady
from emp_core.queue.consumer import Consumer
from emp_core.queue.queue import JobQueue
from emp_core.testing.link import link_to
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import names_of_events, until

SLOW_POLL: dict[str, Any] = {"poll_s": 60.0}
"""A worker that looks by itself once a minute: what comes sooner, came because it was told."""


@pytest.fixture
def other_steering() -> Steering:
    return Steering()


# -- claiming ----------------------------------------------------------------------------------------------------


async def test_jobs_do_not_wait_for_the_next_look(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering), **SLOW_POLL)
    for _ in range(3):
        job = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        await queue.wait(job.id, timeout=10)


async def test_a_service_that_gets_a_slot_back_takes_the_next_job_while_another_one_is_idle(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, other_steering: Steering
):
    await start_worker(
        steered_binding(steering, "one"),
        steered_binding(other_steering, "two"),
        concurrency=("1",),
        **SLOW_POLL,
    )
    first = await queue.submit(JobSpec("one"))
    (await steering.next()).complete()
    await queue.wait(first.id, timeout=10)
    await queue.submit_many(JobSpec("one") for _ in range(3))
    for _ in range(3):
        attempt = await steering.next()
        await anyio.wait_all_tasks_blocked()
        attempt.complete()


async def test_a_service_that_gets_a_slot_back_takes_the_next_job_while_another_one_is_withdrawn(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, other_steering: Steering
):
    """The other one was idle when the worker claimed last."""
    running = await start_worker(
        steered_binding(steering, "one"),
        steered_binding(other_steering, "two"),
        concurrency=("1",),
        **SLOW_POLL,
    )
    await queue.submit(JobSpec("two"))
    (await other_steering.next()).complete()
    await queue.submit(JobSpec("one"))
    busy = await steering.next()
    await until(lambda: offers(queue, running.id, " two "))
    other_steering.health = Health(ok=False, reason="it is gone")
    running.worker._offering.services["two"]._look.set()
    await until(lambda: is_withdrawn(queue, "two"))
    busy.complete()
    await anyio.wait_all_tasks_blocked()
    await queue.submit(JobSpec("one"))
    (await steering.next()).complete()


async def offers(queue: JobQueue, worker_id: str, services: str) -> bool:
    return bool(await queue.client.hget(queue.keys.worker(worker_id, "claim"), "free") == services)


async def is_withdrawn(queue: JobQueue, service: str) -> bool:
    [view] = await queue.workers()
    return view.capabilities.services[service].withdrawn is not None


async def test_a_lane_that_went_and_came_back_is_served_at_once(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering), **SLOW_POLL)
    for _ in range(3):
        job = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        await queue.wait(job.id, timeout=10)
        await queue.client.zadd(queue.keys.fixed("lanes_empty"), {"steered": 1}, xx=True)
        await queue.client.rpush(queue.keys.worker(running.id, "inbox"), "due")
        await until(lambda: lane_is_gone(queue))


async def test_what_redis_lost_of_a_worker_is_told_again_once_it_is_back(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """As when a replica takes over that had not heard all of it."""
    await queue.submit(JobSpec("elsewhere"))
    async with link_to(queue.url) as (link, url):
        running = await start_worker(steered_binding(steering), redis_url=url, **SLOW_POLL)
        await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        mine = queue.keys.worker(running.id, "lanes")
        await queue.client.zadd(mine, {"elsewhere": 0.0})
        await queue.client.zrem(mine, "steered")
        await queue.client.zrem(queue.keys.lane_workers("steered"), running.id)
        await link.cut()
        await until(lambda: serves_again(queue, running.id))
        await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        assert await queue.client.zrange(mine, 0, -1) == ["steered"]
        await running.end()


async def serves_again(queue: JobQueue, worker_id: str) -> bool:
    return await queue.client.zscore(queue.keys.lane_workers("steered"), worker_id) is not None


async def lane_is_gone(queue: JobQueue) -> bool:
    return not await queue.client.hexists(queue.keys.fixed("lanes"), "steered")


async def withdrawn_because(queue: JobQueue, reason: str) -> bool:
    [view] = await queue.workers()
    return view.capabilities.services["steered"].withdrawn == reason


async def test_a_service_that_is_down_at_the_start_is_taken_up_when_it_is_there(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.connect_error = ServiceUnavailable("nobody listens on port 1")
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    [view] = await queue.workers()
    assert view.capabilities.services["steered"].withdrawn is not None
    steering.connect_error = None
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).attempt == 1


async def test_a_service_that_is_not_healthy_gets_no_jobs(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.health = Health(ok=False, reason="it is warming up")
    await start_worker(steered_binding(steering))
    await queue.submit(JobSpec("steered"))
    await until(lambda: withdrawn_because(queue, "it is warming up"))
    assert steering.attempts == []


async def test_a_scheduled_job_begins_when_it_is_due(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    """Even though the keeper slept when it was submitted."""
    await start_worker(steered_binding(steering), **SLOW_POLL)
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    await queue.wait(job.id, timeout=10)
    start_at = datetime.now(UTC) + timedelta(seconds=0.2)
    later = await queue.submit(JobSpec("steered", start_at=start_at))
    (await steering.next()).complete()
    done = await queue.wait(later.id, timeout=10)
    assert done.started_at is not None
    assert timedelta(0) <= done.started_at - start_at < timedelta(seconds=1)


async def test_a_name_that_is_taken_is_refused(start_worker: WorkerStarter):
    await start_worker(name="same", lease_s=60.0)
    with pytest.raises(ConfigError, match="a worker same@test is alive already"):
        await start_worker(name="same", lease_s=0.5)


async def test_a_redis_that_cannot_be_written_while_a_worker_registers_is_waited_for_and_no_namesake(
    queue: JobQueue, start_worker: WorkerStarter, monkeypatch: pytest.MonkeyPatch
):
    refused: list[float] = []
    real = Consumer.lanes

    async def full(consumer: Consumer, *names: Any) -> Any:
        refused.append(anyio.current_time())
        if refused[-1] < refused[0] + 1.7:
            raise NotReady("OOM command not allowed when used memory > 'maxmemory'")
        return await real(consumer, *names)

    monkeypatch.setattr(Consumer, "lanes", full)
    job = await queue.submit(JobSpec("echo"))
    await start_worker(lease_s=0.3)
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


async def test_a_dead_ones_name_is_waited_for(queue: JobQueue, start_worker: WorkerStarter):
    await queue.client.set(queue.keys.worker("same@test", "heartbeat"), "dead", px=400)
    job = await queue.submit(JobSpec("echo"))
    await start_worker(name="same", lease_s=0.5)
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


async def test_a_worker_whose_name_was_taken_over_says_so_once_and_comes_back(
    queue: JobQueue, start_worker: WorkerStarter, caplog: pytest.LogCaptureFixture
):
    await start_worker(name="same", lease_s=0.5)
    await queue.client.set(queue.keys.worker("same@test", "heartbeat"), "another", px=1200)
    job = await queue.submit(JobSpec("echo"))
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
    said = [record.getMessage() for record in caplog.records]
    assert sum("registering again" in line for line in said) == 1
    assert any("took this worker's name over" in line for line in said)


# -- cancelling and losing ---------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_connector(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering), lease_s=60.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    assert (await queue.cancel(job.id)).status in (JobState.ACTIVE, JobState.CANCELLED), "as fast as the worker is"
    await attempt.until_ended()
    assert attempt.cancelled
    assert (await queue.wait(job.id, timeout=10)).status is JobState.CANCELLED
    assert steering.cancels == [job.id]


async def test_a_lost_lease_stops_the_attempt(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering), lease_s=0.6)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await queue.client.hset(queue.keys.job(job.id), "token", "somebody else's")
    await attempt.until_ended()
    assert attempt.cancelled
    assert "released" not in await names_of_events(queue, job.id)
    # That somebody does not exist: its lease ends, and the job is done after all.
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).crashes == 1


async def test_progress_and_the_checkpoint_arrive(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", max_attempts=2))
    attempt = await steering.next()
    following = queue.events(job.id)
    async for event in following:
        if event.name == "claimed":
            await attempt.context.checkpoint("run-7")
            await attempt.context.progress(0.25, "half of a half")
        elif event.name == "progress":
            assert (event.data["progress"], event.data["message"]) == (25.0, "half of a half")
            break
    await following.aclose()
    attempt.fail(RuntimeError("again"))
    again = await steering.next()
    assert again.context.service_job_id == "run-7"
    assert again.job.progress == 0
    again.complete()
    await queue.wait(job.id, timeout=10)


@pytest.mark.parametrize("message", ["\ud800", "x" * 100_000, "\x00"])
async def test_no_message_of_a_connector_ends_its_worker(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, message: object
):
    await start_worker(steered_binding(steering), lease_s=1.0)
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await attempt.context.progress(0.5, message)  # type: ignore[arg-type]
    await attempt.context.checkpoint(message)  # type: ignore[arg-type]

    async def arrived() -> bool:
        return (await queue.get(job.id)).progress == 50

    await until(arrived)
    attempt.complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


async def test_one_worker_runs_many_jobs_at_once(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering), concurrency=("50",))
    jobs = await queue.submit_many(JobSpec("steered") for _ in range(120))
    attempts = [await steering.next() for _ in range(50)]
    for attempt in attempts:
        attempt.complete()
    for _ in range(70):
        (await steering.next()).complete()
    for job in jobs:
        assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
