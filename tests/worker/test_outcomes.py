"""What becomes of a job whose connector fails is decided by the error's type."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from emp_core import errors
from emp_core.connectors.base import Refusal
from emp_core.jobs.model import JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import names_of_events, until, until_event

FAIL = [errors.InvalidJob, errors.InputError, errors.UnsafeName, errors.DeadlineExceeded]
RETRY = [
    errors.ServiceUnavailable,
    errors.ConnectionLost,
    errors.ServiceBroken,
    errors.JobFailed,
    errors.AttemptTimeout,
    errors.StorageError,
    errors.ConnectorError,
    RuntimeError,
]
ELSEWHERE = [errors.MissingModel, errors.MissingNode, errors.NotHere]
PAUSE = [errors.AuthenticationFailed, errors.QuotaExhausted]


async def fail_once(queue: JobQueue, steering: Steering, error: BaseException, **spec) -> str:
    job = await queue.submit(JobSpec("steered", **spec))
    (await steering.next()).fail(error)
    return job.id


@pytest.mark.parametrize("kind", FAIL)
async def test_what_no_attempt_can_mend_fails_at_once(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[errors.EmpError]
):
    await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, kind("no way", details={"node": 7}))
    job = await queue.wait(job_id, timeout=10)
    assert job.error is not None
    assert (job.status, job.attempt, job.error.code, job.error.message) == ("failed", 1, kind.code, "no way")
    assert (job.error.retryable, job.error.details) == (False, {"node": 7})


@pytest.mark.parametrize("kind", RETRY)
async def test_what_another_attempt_may_mend_is_tried_again(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[Exception]
):
    worker = await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, kind("not now"))
    retried = await until_event(queue, job_id, "retried")
    assert retried.data["attempt"] == 1
    assert retried.data["error"]["retryable"] is True
    job = await queue.get(job_id)
    assert job.requirement.avoid == (worker.id,)
    if kind is not errors.ServiceBroken:  # that one takes the service out
        (await steering.next()).complete({"n": 2})
        job = await queue.wait(job_id, timeout=10)
        assert (job.status, job.attempt, job.error) == (JobState.COMPLETED, 2, None)


@pytest.mark.parametrize("kind", [*RETRY, errors.ServiceBusy, errors.OutOfMemory])
async def test_the_last_attempts_failure_is_the_jobs(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[Exception]
):
    await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, kind("not now"), max_attempts=1)
    job = await queue.wait(job_id, timeout=10)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", getattr(kind, "code", "unexpected"))
    assert job.error.retryable


@pytest.mark.parametrize("kind", ELSEWHERE)
async def test_what_this_worker_cannot_do_is_given_to_another(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[errors.EmpError]
):
    first = await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, kind("not on this machine"), max_attempts=1)
    await until_event(queue, job_id, "released")
    job = await queue.get(job_id)
    assert (job.status, job.attempt, job.requirement.not_here) == ("pending", 0, (first.id,))
    other = Steering()
    second = await start_worker(steered_binding(other))
    (await other.next()).complete()
    done = await queue.wait(job_id, timeout=10)
    assert (done.status, done.worker_id, done.attempt) == ("completed", second.id, 1)


async def test_a_job_that_the_connector_refuses_is_given_to_another(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.refusal = Refusal("too large for me")
    worker = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    released = await until_event(queue, job.id, "released")
    assert released.data["error"]["message"] == "too large for me"
    assert (await queue.get(job.id)).requirement.not_here == (worker.id,)
    assert steering.attempts == []


@pytest.mark.parametrize("kind", PAUSE)
async def test_what_only_the_operator_can_mend_pauses_the_service_and_burns_no_attempts(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[errors.EmpError]
):
    await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, kind("wrong key"), max_attempts=1)
    await until_event(queue, job_id, "released")
    job = await queue.get(job_id)
    assert (job.status, job.attempt, job.requirement.not_here) == ("pending", 0, ())
    await until_withdrawn(queue, "wrong key")


async def until_withdrawn(queue: JobQueue, reason: str | None) -> None:
    """Until the one worker says so of its one service."""

    async def withdrawn() -> bool:
        [view] = await queue.workers()
        [offer] = view.capabilities.services.values()
        return offer.withdrawn == reason

    await until(withdrawn)


async def test_a_broken_instance_gets_no_more_jobs(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering))
    await fail_once(queue, steering, errors.ServiceBroken("CUDA fault"))
    await until_withdrawn(queue, "CUDA fault")


@pytest.mark.parametrize("kind", [errors.ServiceBusy, errors.RateLimited])
async def test_a_busy_service_is_asked_again_after_the_time_that_it_told(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, kind: type[errors.ServiceBusy]
):
    await start_worker(steered_binding(steering))
    before = datetime.now(UTC)
    job_id = await fail_once(queue, steering, kind("busy", retry_after_s=60.0))
    await until_event(queue, job_id, "retried")
    job = await queue.get(job_id)
    assert (job.status, job.requirement.avoid) == ("scheduled", ())
    due = await queue.client.zscore(queue.keys.index("scheduled"), job_id)
    assert due / 1e6 >= (before + timedelta(seconds=60)).timestamp()


async def test_a_job_that_ran_out_of_memory_is_tried_here_once_more_then_elsewhere(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    worker = await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, errors.OutOfMemory("no room"))
    again = await steering.next()
    assert again.job.requirement.avoid == ()
    again.fail(errors.OutOfMemory("no room"))
    third = await steering.next()
    assert third.job.requirement.avoid == (worker.id,)
    third.complete()
    assert (await queue.wait(job_id, timeout=10)).attempt == 3


async def test_one_failure_out_of_a_connectors_task_group_decides(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    inner = ExceptionGroup("inner", [ValueError("beside"), errors.InvalidJob("bad field")])
    job_id = await fail_once(queue, steering, ExceptionGroup("outer", [inner, KeyError("x")]))
    job = await queue.wait(job_id, timeout=10)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", "invalid_job")


BAD_RESULTS = {
    "data": JobResult(data={"x": object()}),
    "not a number": JobResult(data={"x": float("nan")}),
    "half a character": JobResult(data={"x": "\ud800"}),
    "usage": JobResult(usage={"x": object()}),
    "usage not a number": JobResult(usage={"loading_ms": float("nan")}),
    "usage half a character": JobResult(usage={"x": "\ud800"}),
}


@pytest.mark.parametrize("result", BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
async def test_a_result_that_json_cannot_hold_is_a_failure_of_the_attempt(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, result: JobResult
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", max_attempts=1))
    (await steering.next()).complete(result=result)
    done = await queue.wait(job.id, timeout=10)
    assert done.error is not None
    assert (done.status, done.error.code) == ("failed", "unexpected")
    await goes_on(queue, steering)


async def goes_on(queue: JobQueue, steering: Steering) -> None:
    """The worker is none the worse."""
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


BAD_ERRORS = {
    "details": errors.JobFailed("bad", details={"x": object()}),
    "details not a number": errors.JobFailed("bad", details={"x": float("inf")}),
    "half a character": errors.JobFailed("bad \ud800"),
    "a strange message": RuntimeError("bad", object(), b"\xff"),
    "no message": RuntimeError(),
    "a very long message": errors.JobFailed("x" * 1_000_000),
}


@pytest.mark.parametrize("error", BAD_ERRORS.values(), ids=BAD_ERRORS.keys())
async def test_whatever_a_connector_raises_is_recorded(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, error: Exception
):
    await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, error, max_attempts=1)
    job = await queue.wait(job_id, timeout=10)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", getattr(error, "code", "unexpected"))
    assert len(job.error.message) < 100_000
    await goes_on(queue, steering)


async def test_a_cancellation_that_nobody_asked_for_is_a_failure(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """As when a connector awaits a task of a library that cancelled it."""
    await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, anyio.get_cancelled_exc_class()(), max_attempts=1)
    job = await queue.wait(job_id, timeout=10)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", "unexpected")
    await goes_on(queue, steering)


async def test_an_attempt_that_takes_too_long_is_stopped(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", timeout_s=0.05, max_attempts=2))
    for number in (1, 2):
        attempt = await steering.next()
        assert attempt.job.attempt == number
        await attempt.until_ended()
        assert attempt.cancelled
    failed = await queue.wait(job.id, timeout=10)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.attempt) == ("failed", "attempt_timeout", 2)
    assert await names_of_events(queue, job.id) == ["submitted", "claimed", "retried", "claimed", "failed"]


async def test_the_time_limit_of_a_job_does_not_hold_for_the_next(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """Jobs that come one after the other are run by the same task."""
    steering.jobs_at_once = 2
    await start_worker(steered_binding(steering))
    limited = await queue.submit(JobSpec("steered", timeout_s=0.1))
    (await steering.next()).complete()
    assert (await queue.wait(limited.id, timeout=10)).status is JobState.COMPLETED
    free = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await queue.submit(JobSpec("steered", timeout_s=0.1, max_attempts=1))
    late = await steering.next()
    await late.until_ended()
    attempt.complete()
    done = await queue.wait(free.id, timeout=10)
    assert (done.status, done.attempt) == ("completed", 1)


async def test_jobs_go_on_after_some_were_stopped(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    """Those that began before are not stopped along, and those that wait begin."""
    steering.jobs_at_once = 2
    await start_worker(steered_binding(steering), lease_s=60.0)
    first = await queue.submit(JobSpec("steered"))
    kept = await steering.next()
    for _ in range(2):
        stopped = await queue.submit(JobSpec("steered"))
        attempt = await steering.next()
        waiting = await queue.submit(JobSpec("steered"))
        await queue.cancel(stopped.id)
        await attempt.until_ended()
        (await steering.next()).complete()
        assert (await queue.wait(stopped.id, timeout=10)).status is JobState.CANCELLED
        assert (await queue.wait(waiting.id, timeout=10)).status is JobState.COMPLETED
    kept.complete()
    assert (await queue.wait(first.id, timeout=10)).attempt == 1


async def test_a_running_job_is_stopped_at_its_deadline(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    job = await queue.submit(JobSpec("steered", timeout_s=60, deadline_at=soon))
    attempt = await steering.next()
    await attempt.until_ended()
    failed = await queue.wait(job.id, timeout=10)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.attempt) == ("failed", "deadline_exceeded", 1)
    assert attempt.cancelled


async def test_a_job_whose_deadline_has_passed_is_not_begun(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    for _ in range(5):  # it may be the keeper that sees one first
        job = await queue.submit(JobSpec("steered", timeout_s=60, deadline_at=datetime.now(UTC) - timedelta(hours=1)))
        failed = await queue.wait(job.id, timeout=10)
        assert failed.error is not None
        assert (failed.status, failed.error.code) == ("failed", "deadline_exceeded")
    assert steering.attempts == []


async def test_a_store_that_fails_one_job_alone_costs_that_job_an_attempt(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    worker = await start_worker(steered_binding(steering))
    job_id = await fail_once(queue, steering, errors.StorageUnavailable("its own bucket is gone"))
    retried = await until_event(queue, job_id, "retried")
    assert (retried.data["attempt"], retried.data["error"]["code"]) == (1, "storage")
    assert worker.worker.capabilities().services["steered"].withdrawn is None


async def test_a_store_that_breaks_costs_no_job_an_attempt_and_is_taken_up_again(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, tmp_path: Path
):
    folder = tmp_path / "artifacts"
    worker = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await anyio.to_thread.run_sync(shutil.rmtree, folder)
    folder.write_text("in the way")
    attempt.fail(errors.StorageUnavailable("the disk is gone"))
    released = await until_event(queue, job.id, "released")
    assert released.data["error"]["code"] == "storage_unavailable"
    assert worker.worker.capabilities().services["steered"].withdrawn
    folder.unlink()
    (await steering.next()).complete()
    done = await queue.wait(job.id, timeout=10)
    assert (done.status, done.attempt) == ("completed", 1)


async def test_a_job_that_cannot_be_read_fails_and_the_others_go_on(queue: JobQueue, start_worker: WorkerStarter):
    """Whoever wrote it: a newer version, or somebody with a client of their own."""
    odd, deep, good = await queue.submit_many(JobSpec("echo", {"n": n}) for n in range(3))
    await queue.client.hset(queue.keys.job(odd.id), "error", '{"of": "tomorrow"}')
    await queue.client.set(queue.keys.payload(deep.id), "[" * 200_000 + "]" * 200_000)
    await start_worker()
    assert (await queue.wait(good.id, timeout=10)).status is JobState.COMPLETED
    for job in (odd, deep):
        await until_event(queue, job.id, "failed")
        failed = await queue.get(job.id, payload=False)
        assert failed.error is not None
        assert failed.error.code == "invalid_job"
        assert "cannot be read" in failed.error.message
