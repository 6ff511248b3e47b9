"""A lease is the right to a job for a time: what comes after its end does not count."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Lease
from emp_core.queue.queue import JobQueue

from .hands import SECOND, Hands, end_lease, make_due, names_of_events, put


async def lose(queue: JobQueue, hand, job_id: str):
    await end_lease(queue, job_id)
    await hand.house.sweep(rescue=True)


@pytest.mark.parametrize("decision", ["completed", "failed", "cancelled", "retry", "release"])
async def test_an_outcome_after_the_end_of_the_lease_is_refused(queue: JobQueue, hands: Hands, decision: str):
    """Even before anybody has taken the job away."""
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    await end_lease(queue, "a")
    assert await hand.finish(claimed, decision) == (-1, "active")


@pytest.mark.parametrize("decision", ["completed", "failed", "cancelled", "retry", "release"])
async def test_an_outcome_under_an_older_lease_is_refused(queue: JobQueue, hands: Hands, decision: str):
    await put(queue, "a")
    first, second = await hands(), await hands()
    late = await first.take_one()
    await lose(queue, second, "a")
    assert await first.finish(late, decision) == (-1, "pending")
    current = await second.take_one()
    assert await first.finish(late, decision) == (-1, "active")
    assert await second.finish(current, result='{"success":true,"data":{"by":"second"},"artifacts":[]}') == (
        1,
        "completed",
    )
    assert await first.finish(late, decision) == (-1, "completed")
    done = await queue.get("a")
    assert done.result is not None
    assert done.result["data"] == {"by": "second"}
    assert done.worker_id == second.name


async def test_an_outcome_of_a_job_that_is_gone_is_refused(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    await hand.finish(claimed)
    await make_due(queue, "completed", "a")
    await hand.house.sweep(rescue=True)
    assert await hand.finish(claimed) == (-1, "")


async def test_renewing_keeps_the_lease_and_takes_progress_along(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b")
    hand = await hands()
    a, b = await hand.take(2)
    before = await queue.client.zscore(queue.keys.index("active"), "a")
    renewal = await hand.consumer.renew([Lease("a", a.token, 12.5, 'half "done" ü', "run-1"), Lease("b", b.token)])
    assert (renewal.registered, renewal.lost, renewal.cancelled) == (True, frozenset(), frozenset())
    assert await queue.client.zscore(queue.keys.index("active"), "a") > before
    job = await queue.get("a")
    assert (job.progress, job.message, job.service_job_id) == (12.5, 'half "done" ü', "run-1")


async def test_progress_without_a_message_leaves_the_last_one(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    a = await hand.take_one()
    await hand.consumer.renew([Lease("a", a.token, 10.0, "loading")])
    await hand.consumer.renew([Lease("a", a.token, 20.0)])
    job = await queue.get("a")
    assert (job.progress, job.message) == (20.0, "loading")


async def test_renewing_tells_what_was_lost_and_what_is_to_be_cancelled(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    hand, other = await hands(), await hands()
    a, b, c = await hand.take(3)
    await queue.cancel("b")
    await lose(queue, other, "a")
    await other.take_one()
    renewal = await hand.consumer.renew([Lease(one.job.id, one.token) for one in (a, b, c)])
    assert (renewal.lost, renewal.cancelled) == (frozenset("a"), frozenset("b"))


async def test_a_lease_that_ended_can_be_renewed_until_somebody_takes_the_job(queue: JobQueue, hands: Hands):
    """Redis was away for longer than leases hold: the work was not in vain."""
    await put(queue, "a")
    hand = await hands()
    a = await hand.take_one()
    await end_lease(queue, "a")
    assert not (await hand.consumer.renew([Lease("a", a.token)])).lost
    assert await hand.finish(a) == (1, "completed")


async def test_a_lost_worker_is_counted_apart_from_failures(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=10)
    hand = await hands(max_crashes=3)
    await hand.take_one()
    await lose(queue, hand, "a")
    job = await queue.get("a")
    assert (job.status, job.attempt, job.crashes) == (JobState.PENDING, 1, 1)
    assert (await names_of_events(queue, "a"))[-2:] == ["worker_lost", "rescued"]


async def test_a_job_that_takes_its_workers_down_fails_as_poison(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=10)
    hand = await hands(max_crashes=2)
    for _ in range(2):
        await hand.take_one()
        await lose(queue, hand, "a")
    job = await queue.get("a")
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.crashes, job.attempt) == ("poison", 2, 2)
    assert "2 times" in job.error.message


async def test_a_worker_lost_in_the_last_attempt_fails_the_job(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=1)
    hand = await hands()
    await hand.take_one()
    await lose(queue, hand, "a")
    job = await queue.get("a")
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "worker_lost")
    assert hand.name in job.error.message


async def test_a_worker_lost_after_the_deadline_fails_the_job(queue: JobQueue, hands: Hands):
    await put(queue, "a", deadline_at=datetime.now(UTC) + timedelta(hours=1))
    hand = await hands()
    await hand.take_one()
    await queue.client.hset(queue.keys.job("a"), "deadline_at", SECOND)
    await make_due(queue, "deadlines", "a")
    await hand.house.sweep(rescue=True)
    assert (await queue.get("a")).status is JobState.ACTIVE, "its own worker ends it"
    await lose(queue, hand, "a")
    job = await queue.get("a")
    assert job.error is not None
    assert (job.status, job.error.code) == (JobState.FAILED, "deadline_exceeded")


async def test_nothing_is_rescued_while_clocks_are_in_doubt(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.take_one()
    await end_lease(queue, "a")
    await hand.house.sweep(rescue=False)
    assert (await queue.get("a")).status is JobState.ACTIVE


async def test_attempts_are_counted_from_the_beginning_after_a_retry_by_hand(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=1, deadline_at=datetime.now(UTC) + timedelta(hours=1))
    hand = await hands()
    error = '{"code":"x","message":"m","retryable":false,"details":{}}'
    await hand.finish(await hand.take_one(), "failed", error=error)
    revived = await queue.retry("a")
    assert (revived.attempt, revived.crashes, revived.error, revived.deadline_at) == (0, 0, None, None)
    assert (await hand.take_one()).job.attempt == 1


async def test_a_job_that_missed_its_deadline_can_be_retried_by_hand(queue: JobQueue, hands: Hands):
    await put(queue, "a", deadline_at=datetime.now(UTC) + timedelta(hours=1))
    hand = await hands()
    await make_due(queue, "deadlines", "a")
    await hand.house.sweep(rescue=True)
    assert (await queue.get("a")).status is JobState.FAILED
    await queue.retry("a")
    await hand.house.sweep(rescue=True)
    assert await hand.ids(1) == ["a"]


async def test_only_one_worker_keeps_house(queue: JobQueue, hands: Hands):
    first, second = await hands(), await hands()
    assert (await first.house.sweep(rescue=True)).is_keeper
    assert not (await second.house.sweep(rescue=True)).is_keeper
    assert not (await second.consumer.renew([])).keeper_missing
    await first.consumer.retire()
    assert (await second.consumer.renew([])).keeper_missing
    assert (await second.house.sweep(rescue=True)).is_keeper


async def test_the_keeper_knows_when_something_is_due_next(queue: JobQueue, hands: Hands):
    hand = await hands(lease_s=600.0)
    await put(queue, "a", start_at=datetime.now(UTC) + timedelta(seconds=100))
    assert (await hand.house.sweep(rescue=True)).next_due_s == pytest.approx(100, abs=2)
    await put(queue, "b", deadline_at=datetime.now(UTC) + timedelta(seconds=50))
    assert (await hand.house.sweep(rescue=True)).next_due_s == pytest.approx(50, abs=2)


async def test_housekeeping_goes_on_at_once_when_there_is_more_than_a_batch(queue: JobQueue, hands: Hands):
    from emp_core.jobs.model import JobSpec

    await queue.submit_many(JobSpec("echo") for _ in range(230))
    hand = await hands()
    claimed = await hand.take(230)
    await queue.client.zadd(queue.keys.index("active"), {one.job.id: 1 for one in claimed})
    rounds = []
    while (swept := await hand.house.sweep(rescue=True)).rescued:
        rounds.append(swept.rescued)
        assert swept.next_due_s is not None
        assert (swept.next_due_s == 0) == (swept.rescued == 100)
    assert rounds == [100, 100, 30]


async def test_a_ghost_among_the_active_is_forgotten(queue: JobQueue, hands: Hands):
    hand = await hands()
    await queue.client.zadd(queue.keys.index("active"), {"ghost": 1})
    assert (await hand.house.sweep(rescue=True)).is_keeper
    assert await queue.client.zscore(queue.keys.index("active"), "ghost") is None


async def test_ghosts_among_the_waiting_are_passed_over(queue: JobQueue, hands: Hands):
    await put(queue, "g1", "a", "g2", "b", customer_id="c")
    await queue.client.delete(
        *[
            key
            for one in ("g1", "g2")
            for key in (queue.keys.job(one), queue.keys.payload(one), queue.keys.job_events(one))
        ]
    )
    assert await (await hands()).ids(4) == ["a", "b"]


async def test_a_whole_line_of_ghosts_is_passed_over(queue: JobQueue, hands: Hands):
    await put(queue, "g1", "g2")
    await queue.client.delete(
        *[
            key
            for one in ("g1", "g2")
            for key in (queue.keys.job(one), queue.keys.payload(one), queue.keys.job_events(one))
        ]
    )
    hand = await hands()
    assert await hand.ids(4) == []
    await put(queue, "a")
    assert await hand.ids(4) == ["a"]


async def test_any_number_of_ghosts_is_passed_over_in_calls_that_end_soon(queue: JobQueue, hands: Hands):
    gone = await queue.submit_many(JobSpec("echo") for _ in range(2500))
    kinds = (queue.keys.job, queue.keys.payload, queue.keys.job_events)
    await queue.client.delete(*[key(job.id) for job in gone for key in kinds])
    await put(queue, "a")
    hand = await hands()
    claims = [await hand.claim(4) for _ in range(3)]
    assert [[one.job.id for one in claim.jobs] for claim in claims] == [[], [], ["a"]]
    assert [claim.come_back_s for claim in claims] == [0.0, 0.0, None]


async def test_waiting_jobs_fail_at_their_deadline(queue: JobQueue, hands: Hands):
    hand = await hands()
    await put(queue, "p", deadline_at=datetime.now(UTC) + timedelta(hours=1))
    await put(
        queue, "s", deadline_at=datetime.now(UTC) + timedelta(hours=1), start_at=datetime.now(UTC) + timedelta(hours=2)
    )
    for one in ("p", "s"):
        await make_due(queue, "deadlines", one)
    assert (await hand.house.sweep(rescue=True)).expired == 2
    for one in ("p", "s"):
        job = await queue.get(one)
        assert job.error is not None
        assert (job.status, job.error.code, job.error.retryable) == (JobState.FAILED, "deadline_exceeded", False)
    assert await hand.ids(1) == []


async def test_a_job_whose_start_and_deadline_passed_together_fails_once(queue: JobQueue, hands: Hands):
    hand = await hands()
    soon = datetime.now(UTC) + timedelta(hours=1)
    await put(queue, "a", deadline_at=soon, start_at=soon)
    await queue.client.hset(queue.keys.job("a"), "deadline_at", SECOND)
    await make_due(queue, "deadlines", "a")
    await make_due(queue, "scheduled", "a")
    await hand.house.sweep(rescue=True)
    assert (await queue.get("a")).status is JobState.FAILED
    assert await hand.ids(1) == []


async def test_a_job_that_was_cancelled_while_it_ran_is_not_tried_again(queue: JobQueue, hands: Hands):
    for decision in ("retry", "release"):
        await put(queue, decision)
        hand = await hands()
        claimed = await hand.take_one()
        await queue.cancel(decision, reason='because "ü"')
        assert await hand.inbox() == [f"cancel {decision} {claimed.token}"]
        assert await hand.finish(claimed, decision, delay_s=60) == (1, "cancelled")
        [asked] = [event for event in await queue.history(decision) if event.name == "cancel_requested"]
        assert asked.data == {"reason": 'because "ü"'}


async def test_a_cancel_that_lingers_is_not_for_the_run_after_it(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    before = await hand.take_one()
    await queue.cancel("a")
    await hand.finish(before, "cancelled")
    await queue.retry("a")
    after = await hand.take_one()
    lingering = [message for message in await hand.inbox() if message.startswith("cancel ")]
    assert lingering == [f"cancel a {before.token}"]
    assert after.token != before.token


async def test_a_job_that_an_aborted_script_left_without_a_token_can_be_cancelled(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.take_one()
    await queue.client.hdel(queue.keys.job("a"), "token")
    await queue.cancel("a")
    assert (await queue.get("a")).cancel_requested
    await end_lease(queue, "a")
    await hand.house.sweep(rescue=True)
    assert (await queue.get("a")).status is JobState.CANCELLED


async def test_a_job_that_was_done_before_the_cancel_arrived_is_completed(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    assert (await queue.cancel("a")).cancel_requested
    assert await hand.finish(claimed) == (1, "completed")


async def test_settings_decide_how_many_attempts_a_job_has(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands(max_attempts=1)
    assert (await hand.take_one()).job.max_attempts == 1
    await lose(queue, hand, "a")
    assert (await queue.get("a")).status is JobState.FAILED
    assert evolve(queue.settings).max_attempts == 3
