"""What each attempt of a job took, read from what happened to it."""

from typing import Any

import pytest

from emp_core.errors import JobNotFound
from emp_core.jobs.codec import encode_error, from_us
from emp_core.jobs.model import JobError
from emp_core.jobs.states import JobState
from emp_core.queue.attempts import attempts_of
from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue

from .hands import Hands, end_lease, put

RECORD = ',"worker":"w1","ran_ms":12.5,"loading_ms":3,"gpu_memory_mb":900,"gpu_utilization":41.5,"cache_hits":2'


def event(name: str, at: int = 0, **data: Any) -> JobEvent:
    moment = from_us(str(1_900_000_000_000_000 + at))
    assert moment is not None
    return JobEvent(name, "a", moment, None, data)


def claimed(attempt: int = 1, **data: Any) -> JobEvent:
    return event("claimed", worker="w1", machine="m", attempt=attempt, waited_us=1500, **data)


def test_a_job_that_was_never_claimed_has_no_attempts():
    assert attempts_of([]) == []
    assert attempts_of([event("submitted"), event("unserved", reasons=[]), event("cancelled")]) == []


def test_an_attempt_that_runs_has_no_end():
    [one] = attempts_of([event("submitted"), claimed()])
    assert (one.number, one.worker_id, one.machine_id, one.waited_ms) == (1, "w1", "m", 1.5)
    assert (one.outcome, one.ended_at, one.ran_ms) == (None, None, None)
    assert one.as_dict() == {
        "number": 1,
        "worker_id": "w1",
        "machine_id": "m",
        "began_at": one.began_at.isoformat(),
        "waited_ms": 1.5,
    }


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("completed", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("retried", "retry"),
        ("released", "released"),
        ("worker_lost", "worker_lost"),
    ],
)
def test_every_end_of_an_attempt_is_told(name: str, outcome: str):
    error = {"code": "job_failed", "message": "it"}
    [one] = attempts_of([claimed(), event(name, 7, ran_ms=12.5, error=error, unknown=1)])
    assert (one.outcome, one.ran_ms, one.error) == (outcome, 12.5, error)
    assert one.ended_at == event(name, 7).at


@pytest.mark.parametrize("name", ["progress", "cancel_requested", "reprioritized", "unserved", "mended", "of-tomorrow"])
def test_what_only_happens_on_the_way_ends_nothing(name: str):
    [one] = attempts_of([claimed(), event(name)])
    assert one.outcome is None


def test_what_happens_to_a_job_after_its_attempt_is_not_the_attempts():
    """A job that waits for its next attempt is cancelled, or its deadline passes."""
    [one] = attempts_of([claimed(), event("retried"), event("failed", error={"code": "deadline_exceeded"})])
    assert (one.outcome, one.error) == ("retry", None)
    [lost] = attempts_of([claimed(), event("worker_lost"), event("cancelled")])
    assert lost.outcome == "worker_lost"


def test_attempts_whose_beginning_was_not_kept_are_left_out():
    [one] = attempts_of([event("completed"), claimed(3), event("retried")])
    assert (one.number, one.outcome) == (3, "retry")


async def test_attempts_are_told_with_all_that_the_worker_recorded(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=5)
    hand = await hands(name="w1")
    error = encode_error(JobError("job_failed", "node 7 failed", True))
    await hand.finish(await hand.take_one(), "release", record=',"worker":"w1","ran_ms":1.0')
    await hand.finish(await hand.take_one(), "retry", error=error, record=',"worker":"w1","ran_ms":2.0')
    await hand.take_one()
    await end_lease(queue, "a")
    await hand.house.sweep(rescue=True)
    await hand.finish(await hand.take_one(), record=RECORD)
    attempts = await queue.attempts("a")
    assert [(one.number, one.outcome, one.ran_ms) for one in attempts] == [
        (1, "released", 1.0),
        (1, "retry", 2.0),
        (2, "worker_lost", None),
        (3, "completed", 12.5),
    ]
    assert attempts[1].error is not None
    assert (attempts[1].error["code"], attempts[1].error["message"]) == ("job_failed", "node 7 failed")
    last = attempts[-1]
    assert (last.worker_id, last.machine_id) == ("w1", "m")
    assert (last.loading_ms, last.gpu_memory_mb, last.gpu_utilization, last.cache_hits) == (3, 900, 41.5, 2)
    assert all(one.waited_ms >= 0 and one.ended_at is not None for one in attempts)
    assert [one.began_at for one in attempts] == sorted(one.began_at for one in attempts)


async def test_a_retried_job_waits_from_when_it_could_be_claimed_again(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    await queue.client.hincrby(queue.keys.job("a"), "created_at", -60_000_000)
    hand = await hands()
    await hand.finish(await hand.take_one(), "retry")
    await hand.finish(await hand.take_one())
    first, second = await queue.attempts("a")
    assert first.waited_ms >= 60_000
    assert second.waited_ms < 30_000


async def test_a_new_run_counts_from_one_and_the_old_attempts_stay_known(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.finish(await hand.take_one(), "failed")
    await queue.retry("a")
    await hand.finish(await hand.take_one())
    assert [(one.number, one.outcome) for one in await queue.attempts("a")] == [(1, "failed"), (1, "completed")]
    assert (await queue.get("a")).status is JobState.COMPLETED


async def test_there_is_no_such_job(queue: JobQueue):
    with pytest.raises(JobNotFound):
        await queue.attempts("a")
