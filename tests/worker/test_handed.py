"""A worker that waits is handed jobs: it begins them at once, tells that it has them, and leaves those that come too late."""

import json
import os
import signal
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from emp_core.errors import QuotaExhausted
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.processes import worker_process
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import RunningWorker, WorkerStarter

from .waiting import names_of_events, until, until_event


async def waits(queue: JobQueue, running: RunningWorker) -> None:
    """Wait until jobs may be handed to a worker."""

    async def is_idle() -> bool:
        terms = await queue.client.hget(queue.keys.worker(running.id, "claim"), "terms")
        return bool(terms) and await queue.client.zscore(queue.keys.fixed("idle"), running.id) is not None

    await until(is_idle)


async def one_job_before(queue: JobQueue, steering: Steering, running: RunningWorker) -> None:
    """The lane is known, and the worker is idle again."""
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
    await waits(queue, running)


async def test_a_job_begins_without_being_claimed(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    job = await queue.submit(JobSpec("steered", {"n": 1}))
    begun = await queue.get(job.id)
    assert (begun.status, begun.worker_id) == (JobState.ACTIVE, running.id)
    attempt = await steering.next()
    assert attempt.job.payload == {"n": 1}
    await until(lambda: acknowledged(queue))
    attempt.complete()
    assert (await queue.wait(job.id, timeout=10)).attempt == 1
    assert await names_of_events(queue, job.id) == ["submitted", "claimed", "completed"]


async def acknowledged(queue: JobQueue) -> bool:
    return not await queue.client.zcard(queue.keys.fixed("handed"))


async def test_no_more_jobs_run_than_there_are_slots(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    steering.jobs_at_once = 1
    running = await start_worker(steered_binding(steering), poll_s=0.05)
    await one_job_before(queue, steering, running)
    jobs = [await queue.submit(JobSpec("steered")) for _ in range(3)]
    for job in jobs:
        attempt = await steering.next()
        assert attempt.job.id == job.id
        assert sum(not one.ended.is_set() for one in steering.attempts) == 1
        attempt.complete()
        await queue.wait(job.id, timeout=10)


async def test_a_worker_with_free_slots_is_handed_several_jobs_between_two_claims(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.jobs_at_once = 8
    running = await start_worker(steered_binding(steering), poll_s=60.0)
    await one_job_before(queue, steering, running)
    claims: set[str] = set()
    for _ in range(14):
        claims.add(await queue.client.hget(queue.keys.worker(running.id, "claim"), "token"))
        job = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        await queue.wait(job.id, timeout=10)
        await until(lambda: acknowledged(queue))
    assert len(claims) <= 5


async def test_a_worker_claims_between_jobs_before_it_can_be_handed_no_more(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """Not when it comes to that: the outcome of the last one would wait for the claim."""
    steering.jobs_at_once = 32
    running = await start_worker(steered_binding(steering), poll_s=60.0)
    await one_job_before(queue, steering, running)
    claim = queue.keys.worker(running.id, "claim")
    room = int(await queue.client.hget(claim, "room"))
    for left in reversed(range(8, room)):
        assert int(await queue.client.hget(claim, "room")) == left + 1
        job = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        await queue.wait(job.id, timeout=10)
        await until(lambda: acknowledged(queue))

    async def has_room_again() -> bool:
        return int(await queue.client.hget(claim, "room")) == room

    await until(has_room_again)


async def test_a_job_that_comes_too_late_is_left_to_others(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """The worker stood still since the message was sent."""
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    before = len(steering.attempts)
    message = json.dumps(["late", "t.handed", "1000000", "{}", ["service_required", "steered", "status", "active"], 0])
    await queue.client.rpush(queue.keys.worker(running.id, "inbox"), f"job {message}")
    await one_job_before(queue, steering, running)
    assert len(steering.attempts) == before + 1


async def test_a_job_that_was_given_to_others_meanwhile_is_stopped(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    fields = ["service_required", "steered", "status", "active", "attempt", "1"]
    message = json.dumps(["gone", "t.handed", "9000000000000000", "{}", fields, 0])
    await queue.client.rpush(queue.keys.worker(running.id, "inbox"), f"job {message}")
    attempt = await steering.next()
    await attempt.until_ended()
    assert (attempt.job.id, attempt.cancelled) == ("gone", True)
    await one_job_before(queue, steering, running)  # its inbox is read on


async def test_a_worker_that_took_a_job_too_late_claims_at_once(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """The queue does not count on it until then, however many slots it has."""
    running = await start_worker(steered_binding(steering), poll_s=60.0)
    await one_job_before(queue, steering, running)
    await queue.client.zrem(queue.keys.fixed("idle"), running.id)
    fields = ["service_required", "steered", "status", "active", "attempt", "1"]
    message = json.dumps(["gone", "t.handed", "9000000000000000", "{}", fields, 3])
    await queue.client.rpush(queue.keys.worker(running.id, "inbox"), f"job {message}")
    await (await steering.next()).until_ended()
    await waits(queue, running)


async def handed_all_the_same(queue: JobQueue, running: RunningWorker) -> str:
    """Submit a job that is handed to a worker as if the queue did not know yet that it cannot take one."""
    keys, client = queue.keys, queue.client
    await client.hset(keys.worker(running.id, "claim"), "free", " steered ")
    await client.zadd(keys.worker(running.id, "lanes"), {"steered": 0})
    await client.zadd(keys.lane_workers("steered"), {running.id: 0})
    await client.zadd(keys.fixed("idle"), {running.id: 1})
    job = await queue.submit(JobSpec("steered"))
    assert (await until_event(queue, job.id, "claimed")).data["worker"] == running.id
    return job.id


async def test_a_worker_that_has_no_free_slot_any_more_gives_back_what_is_handed_to_it(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """A service may take fewer jobs at once than it did when the worker claimed."""
    steering.jobs_at_once = 1
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    await queue.submit(JobSpec("steered"))
    first = await steering.next()
    job_id = await handed_all_the_same(queue, running)
    await until_event(queue, job_id, "released")
    assert len([one for one in steering.attempts if not one.ended.is_set()]) == 1
    first.complete()
    second = await steering.next()
    second.complete()
    done = await queue.wait(job_id, timeout=10)
    assert (done.id, done.attempt) == (second.job.id, 1)


async def test_a_worker_whose_service_was_just_withdrawn_gives_back_what_is_handed_to_it(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    refused = await queue.submit(JobSpec("steered"))
    (await steering.next()).fail(QuotaExhausted("no more today"))
    await until(lambda: serves_nothing(queue))
    await queue.cancel(refused.id)
    await until_event(queue, refused.id, "cancelled")
    begun = len(steering.attempts)
    job_id = await handed_all_the_same(queue, running)
    await until_event(queue, job_id, "released")
    left = await queue.get(job_id)
    assert (left.status, left.attempt, len(steering.attempts)) == (JobState.PENDING, 0, begun)


async def serves_nothing(queue: JobQueue) -> bool:
    return not await queue.client.zcard(queue.keys.lane_workers("steered"))


async def test_an_acknowledgement_that_was_lost_with_its_connection_is_sent_again(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering))
    await one_job_before(queue, steering, running)
    mailbox = running.worker._mailbox
    send, lost = mailbox._wire.send, anyio.Event()

    def lose(*commands: bytes) -> None:
        if any(b"ZREM" in one for one in commands):
            mailbox._wire.drop()
            lost.set()
        else:
            send(*commands)

    mailbox._wire.send = lose  # type: ignore[method-assign]
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    assert lost.is_set()
    await until(lambda: acknowledged(queue))
    attempt.complete()
    done = await queue.wait(job.id, timeout=10)
    assert (done.attempt, done.returned) == (1, 0)
    await one_job_before(queue, steering, running)  # its inbox is read on


async def test_what_was_handed_to_one_that_died_under_a_workers_name_is_not_taken_for_its_own(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """The services of the new one may be others."""
    fields = ["service_required", "another", "status", "active", "attempt", "1"]
    message = json.dumps(["old", "t.handed", "9000000000000000", "{}", fields, 0])
    await queue.client.rpush(queue.keys.worker("w1@test", "inbox"), f"job {message}")
    running = await start_worker(steered_binding(steering))
    assert running.id == "w1@test"
    assert not await queue.client.exists(queue.keys.worker(running.id, "inbox"))
    await one_job_before(queue, steering, running)


async def test_a_job_handed_to_a_worker_that_stands_still_runs_elsewhere_and_only_there(queue: JobQueue):
    settings = evolve(queue.settings, lease_s=0.5, grace_s=0.0)
    async with worker_process(settings, "echo", "first") as first:
        warm = await queue.submit(JobSpec("echo"))
        await queue.wait(warm.id, timeout=10)
        await until(lambda: takes_jobs(queue, "first@test"))
        os.kill(first.pid, signal.SIGSTOP)
        job = await queue.submit(JobSpec("echo", {"n": 2}))
        assert (await queue.get(job.id)).worker_id == "first@test"
        async with worker_process(settings, "echo", "second"):
            done = await queue.wait(job.id, timeout=20)
            assert (done.worker_id, done.attempt, done.crashes) == ("second@test", 1, 0)
            os.kill(first.pid, signal.SIGCONT)
            again = [await queue.submit(JobSpec("echo")) for _ in range(3)]
            for one in again:
                await queue.wait(one.id, timeout=20)
            outcomes = [name for name in await names_of_events(queue, job.id) if name in ("completed", "failed")]
            assert outcomes == ["completed"]


FATAL = """
import os
from emp_core.connectors.echo import EchoConnector

echo = EchoConnector.process_job

def process_job(self, job, context):
    if "fatal" in job.payload:
        os._exit(1)
    return echo(self, job, context)

EchoConnector.process_job = process_job
"""


async def test_a_job_that_takes_its_worker_down_at_once_counts_as_a_crash_though_it_was_handed_over(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
):
    """The worker had said that it has the job: two workers die of it, no third one."""
    folder = tmp_path / "fatal"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FATAL)
    settings = evolve(queue.settings, lease_s=0.5, grace_s=0.0)
    environ = {"PYTHONPATH": str(folder)}
    await start_worker(steered_binding(Steering(), "something-else"), lease_s=0.5)
    async with worker_process(settings, "echo", "first", environ):
        warm = await queue.submit(JobSpec("echo"))
        await queue.wait(warm.id, timeout=20)
        await until(lambda: takes_jobs(queue, "first@test"))
        job = await queue.submit(JobSpec("echo", {"fatal": True}))
        assert (await until_event(queue, job.id, "claimed")).data["worker"] == "first@test"
        rescued = await until_event(queue, job.id, "rescued", "released")
        assert rescued.name == "rescued"
        async with worker_process(settings, "echo", "second", environ):
            done = await queue.wait(job.id, timeout=20)
    assert done.error is not None
    assert (done.error.code, done.attempt, done.crashes) == ("poison", 2, 2)


async def takes_jobs(queue: JobQueue, worker: str) -> bool:
    return await queue.client.zscore(queue.keys.fixed("idle"), worker) is not None


@pytest.mark.parametrize("times", [5])
async def test_a_worker_that_is_asked_to_end_gives_back_what_is_handed_to_it(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, times: int
):
    for _ in range(times):
        running = await start_worker(steered_binding(steering))
        await one_job_before(queue, steering, running)
        running.worker.drain("test")
        job = await queue.submit(JobSpec("steered"))
        await running.until_ended()
        left = await queue.get(job.id)
        assert (left.status, left.attempt) == (JobState.PENDING, 0)
        await queue.cancel(job.id)
    with anyio.fail_after(1):
        assert await acknowledged(queue)
