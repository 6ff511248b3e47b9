"""Jobs that were handed to workers which never said that they have them: they wait again, as if nothing had been."""

import json

import pytest

from emp_core.jobs.states import JobState
from emp_core.queue.attempts import attempts_of
from emp_core.queue.queue import JobQueue

from .handing import handed_to, let_it_lapse, put_and_take, state, waiting
from .hands import Hands, end_lease, names_of_events, put

pytestmark = pytest.mark.usefixtures("known_lane")


async def test_a_job_that_nobody_takes_waits_again_and_no_attempt_counts(queue: JobQueue, hands: Hands):
    dead = await waiting(hands)
    await put(queue, "a", customer_id="c")
    told = await handed_to(dead)
    other = await hands()
    await let_it_lapse(queue)
    swept = await other.house.sweep(rescue=True)
    assert (swept.taken_back, swept.rescued) == (1, 0)
    claimed = await other.take_one()
    assert (claimed.job.id, claimed.job.attempt, claimed.job.crashes) == ("a", 1, 0)
    assert claimed.job.returned == 1
    assert not await dead.acknowledge(told)
    assert await dead.finish(dead.consumer.claimed(told)) == (-1, "active")
    assert await other.finish(claimed) == (1, "completed")
    assert await names_of_events(queue, "a") == ["submitted", "claimed", "released", "claimed", "completed"]


async def test_a_worker_that_did_not_take_a_job_is_handed_no_other_until_it_claims(queue: JobQueue, hands: Hands):
    """Else a dead one would hold up one job after the other until its heartbeat ends."""
    dead, other = await waiting(hands, slots=5), await waiting(hands, slots=5)
    await put(queue, "a")
    await let_it_lapse(queue)
    await other.house.sweep(rescue=True)
    assert await other.inbox() == ["wake"]
    assert [one.job.id for one in (await other.wait_for_jobs(5)).jobs] == ["a"]
    assert [told.job_id for told in await put_and_take(queue, other, "b", "c")] == ["b", "c"]
    assert [told.job_id for told in await dead.handed()] == ["a"]
    await dead.wait_for_jobs(5, heard="a")  # it was slow, not dead
    assert [told.job_id for told in await put_and_take(queue, dead, "d", "e")] == ["e"]


async def test_what_a_worker_did_not_take_before_it_registered_anew_is_not_held_against_it(
    queue: JobQueue, hands: Hands
):
    hand = await waiting(hands, slots=5)
    await put(queue, "a")
    await hand.register({"echo": 0.0})
    await hand.wait_for_jobs(5)
    await hand.register({"echo": None}, reset=False)  # so that it is not woken for the job
    await let_it_lapse(queue)
    assert (await hand.house.sweep(rescue=True)).taken_back == 1
    assert await hand.is_idle()


async def test_one_whose_lease_ended_too_gives_its_customer_one_slot_back(queue: JobQueue, hands: Hands):
    """Nobody kept house for as long as a lease."""
    hand = await waiting(hands, slots=5)
    await put_and_take(queue, hand, "runs", customer_id="c")
    await put(queue, "a", customer_id="c")
    await let_it_lapse(queue)
    await end_lease(queue, "a")
    swept = await hand.house.sweep(rescue=True)
    assert (swept.taken_back, swept.rescued) == (1, 0)
    assert await queue.client.hgetall(queue.keys.fixed("customers_active")) == {"c": "1"}


async def test_its_events_say_who_did_not_take_it(queue: JobQueue, hands: Hands):
    dead = await waiting(hands)
    await put(queue, "a")
    await let_it_lapse(queue)
    await dead.house.sweep(rescue=True)
    [*_, released] = await queue.history("a")
    assert (released.data["worker"], released.data["attempt"]) == (dead.name, 1)
    assert released.data["reason"] == "the worker did not take it"
    [attempt] = attempts_of(await queue.history("a"))
    assert (attempt.outcome, attempt.ran_ms) == ("released", None)


async def test_one_that_was_taken_is_left_alone(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await put(queue, "a")
    told = await handed_to(hand)
    assert await hand.acknowledge(told)
    await let_it_lapse(queue)
    assert (await hand.house.sweep(rescue=True)).taken_back == 0
    assert await hand.finish(hand.consumer.claimed(told)) == (1, "completed")


async def test_a_later_attempt_is_not_taken_back(queue: JobQueue, hands: Hands):
    """Its acknowledgement was lost, and the job went on all the same."""
    hand = await waiting(hands)
    await put(queue, "a")
    told = await handed_to(hand)
    await hand.finish(hand.consumer.claimed(told), "retry")
    [again] = (await hand.wait_for_jobs(heard="a")).jobs
    await let_it_lapse(queue)
    await hand.house.sweep(rescue=True)
    assert await hand.finish(again) == (1, "completed")


async def test_one_that_is_to_be_cancelled_is_cancelled(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await put(queue, "a")
    await queue.cancel("a")
    await let_it_lapse(queue)
    await hand.house.sweep(rescue=True)
    assert await state(queue, "a") is JobState.CANCELLED


async def test_nothing_is_taken_back_while_clocks_are_in_doubt(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await put(queue, "a")
    await let_it_lapse(queue)
    assert (await hand.house.sweep(rescue=False)).taken_back == 0
    assert await state(queue, "a") is JobState.ACTIVE


async def test_the_keeper_knows_when_a_job_is_to_be_taken_back(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, lease_s=60.0)
    await put(queue, "a")
    due_s = (await hand.house.sweep(rescue=True)).next_due_s
    assert due_s is not None
    assert due_s <= 12.0


async def test_a_worker_that_ends_leaves_nothing_that_it_did_not_hear_of(queue: JobQueue, hands: Hands):
    hand, other = await waiting(hands), await hands()
    await put(queue, "a")
    await hand.consumer.retire()
    assert [one.job.id for one in (await other.wait_for_jobs()).jobs] == ["a"]


async def test_a_dead_worker_is_handed_nothing(queue: JobQueue, hands: Hands):
    dead, alive = await waiting(hands), await waiting(hands, {"echo": 0.0})
    await queue.client.zadd(queue.keys.fixed("workers"), {dead.name: 1}, xx=True)
    await put(queue, "a")
    assert await dead.inbox() == []
    assert (await handed_to(alive)).job_id == "a"


async def test_the_message_says_until_when_the_job_must_be_taken(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, lease_s=10.0)
    await put(queue, "a")
    [message] = await hand.inbox()
    redis_s = float((await queue.client.time())[0])
    told = hand.consumer.handed(message.removeprefix("job "))
    assert told.until_s == pytest.approx(redis_s + 2.0, abs=1.5)
    assert json.loads(message.removeprefix("job "))[0] == "a"
