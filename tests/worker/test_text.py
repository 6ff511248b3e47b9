"""Text that jobs put out while they run: whoever follows the job reads all of it, once, in order."""

from collections.abc import AsyncGenerator

import anyio
import pytest

from emp_core import errors
from emp_core.jobs.model import JobSpec
from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import SteeredAttempt, Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

from .waiting import until


class Reader:
    """Follows a job and puts its text together, holding that every piece begins where the one before ended."""

    def __init__(self, following: AsyncGenerator[JobEvent, None]) -> None:
        self.following = following
        self.text = ""
        self.runs = 0

    async def read_until(self, text: str) -> None:
        with anyio.fail_after(10):
            while self.text != text:
                await self.read_one()

    async def read_one(self) -> JobEvent:
        event = await anext(self.following)
        if event.name == "claimed":
            self.text = ""
            self.runs += 1
        elif event.name == "text":
            assert event.data["offset"] == len(self.text.encode())
            self.text += event.data["text"]
        return event


async def put_out(attempt: SteeredAttempt, *pieces: str) -> None:
    for piece in pieces:
        await attempt.context.text(piece)


async def test_text_is_read_while_it_is_made_whole_and_in_order(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    reader = Reader(queue.events(job.id))
    await put_out(attempt, "Hel", "lo, ")
    await reader.read_until("Hello, ")
    await put_out(attempt, "wörld", " 😀")
    await reader.read_until("Hello, wörld 😀")
    attempt.complete()
    while not (await reader.read_one()).is_final:
        pass


async def test_who_comes_late_reads_what_was_put_out_before(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    early = Reader(queue.events(job.id))
    await put_out(attempt, "one ")
    await early.read_until("one ")
    late = Reader(queue.events(job.id))
    await late.read_until("one ")
    await put_out(attempt, "two")
    await early.read_until("one two")
    await late.read_until("one two")
    await early.following.aclose()
    await late.following.aclose()
    attempt.complete()
    await queue.wait(job.id, timeout=10)


async def test_another_attempt_begins_with_no_text(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", max_attempts=2))
    attempt = await steering.next()
    reader = Reader(queue.events(job.id))
    await put_out(attempt, "a first try that is longer")
    await reader.read_until("a first try that is longer")
    attempt.fail(RuntimeError("again"))
    again = await steering.next()
    await put_out(again, "second")
    await reader.read_until("second")
    assert reader.runs == 2
    await reader.following.aclose()
    again.complete()
    await queue.wait(job.id, timeout=10)


@pytest.mark.parametrize("how", ["failed", "drained"])
async def test_a_checkpoint_made_just_before_the_attempt_ends_reaches_the_next_one(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, how: str
):
    """Sooner than the next renewal, with which it would have gone."""
    first = await start_worker(steered_binding(steering), grace_s=0.05)
    job = await queue.submit(JobSpec("steered", max_attempts=2))
    attempt = await steering.next()
    await attempt.context.progress(0.1)
    await until(lambda: is_at(queue, job.id, 10.0))
    await attempt.context.checkpoint("run-1")
    if how == "failed":
        attempt.fail(errors.JobFailed("try again"))
    else:
        first.worker.drain()
        await first.until_ended()
        await start_worker(steered_binding(steering))
    again = await steering.next()
    assert again.context.service_job_id == "run-1"
    again.complete()
    await queue.wait(job.id, timeout=10)


async def is_at(queue: JobQueue, job_id: str, progress: float) -> bool:
    return (await queue.get(job_id)).progress == progress


async def test_a_secure_checkpoint_is_stored_when_the_call_returns(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await attempt.context.checkpoint("resp_1", secure=True)
    assert (await queue.get(job.id)).service_job_id == "resp_1"
    attempt.complete()
    await queue.wait(job.id, timeout=10)
