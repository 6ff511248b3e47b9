"""Handing over: a job that comes while a worker waits for one begins there without being claimed, and is never lost by that."""

from typing import Any

import pytest
from attrs import evolve

from emp_core.jobs.model import Destination, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Lease
from emp_core.queue.queue import JobQueue

from .handing import handed_to, put_and_take, state, waiting
from .hands import Hands, names_of_events, put

pytestmark = pytest.mark.usefixtures("known_lane")


# -- the job ---------------------------------------------------------------------------------------------------------


async def test_a_job_begins_with_the_worker_that_waits_for_one(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await queue.submit(JobSpec("echo", {"text": "ä\n"}, id="a", labels={"l": "v"}, priority=70))
    told = await handed_to(hand)
    assert await hand.acknowledge(told)
    claimed = hand.consumer.claimed(told)
    job, kept = claimed.job, await queue.get("a")
    assert (job.status, job.attempt, job.worker_id, job.machine_id) == (JobState.ACTIVE, 1, hand.name, "m")
    assert job == kept
    assert (await hand.consumer.renew([Lease("a", told.token)])).lost == frozenset()
    assert await hand.finish(claimed) == (1, "completed")
    assert await names_of_events(queue, "a") == ["submitted", "claimed", "completed"]


async def test_it_is_acknowledged_and_finished_even_if_it_cannot_be_read(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await put(queue, "a")
    told = evolve(await handed_to(hand), payload="{")
    assert await hand.acknowledge(told)
    claimed = hand.consumer.claimed(told)
    [problem] = claimed.job.unreadable
    assert problem.startswith("payload: JSONDecodeError")
    assert (claimed.job.id, claimed.job.service_required) == ("a", "echo")
    assert await hand.finish(claimed, "failed", error="{}") == (1, "failed")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "payload",
    [
        {"text": '\0\x1f\x7f"\\/\u2028\U0001f600', "\0": None, "": [[], {}, 1e300, -0.0, 2**70]},
        {"text": '"\\' * 4000},
        {"text": "\x01" * 2700},
        {"deep": nested(100)},
        {"text": "x" * 16_370},
    ],
    ids=["odd characters and numbers", "quotes", "control characters", "deep", "as large as may be"],
)
async def test_whatever_is_in_a_job_comes_over_as_it_is(queue: JobQueue, hands: Hands, payload: dict[str, Any]):
    hand = await waiting(hands)
    await queue.submit(JobSpec("echo", payload, id="a", labels={"é ": "%s\n\\"}, customer_id="b:c {d}"))
    claimed = hand.consumer.claimed(await handed_to(hand))
    assert claimed.job.unreadable == ()
    assert claimed.job == await queue.get("a")
    assert claimed.job.payload == payload


async def test_it_stands_where_a_claimed_job_stands(queue: JobQueue, hands: Hands):
    """Everything but the token, the times and the event of the claim is the same."""
    claiming = await hands()
    await put(queue, "a")
    await claiming.take_one()
    await waiting(hands, name="waits")
    await put(queue, "b")
    told = [await queue.client.hgetall(queue.keys.job(one)) for one in ("a", "b")]
    assert told[0].keys() == told[1].keys()
    claimed, handed = [(await queue.history(one))[-1] for one in ("a", "b")]
    assert claimed.data.keys() == handed.data.keys()
    assert await queue.client.zrange(queue.keys.index("active"), 0, -1) == ["a", "b"]
    assert await queue.client.zcard(queue.keys.index("pending")) == 0


async def test_nobody_is_handed_a_job_unasked(queue: JobQueue, hands: Hands):
    hand = await hands()
    assert await hand.ids() == []
    await put(queue, "a")
    assert await hand.inbox() == ["wake"]
    assert await state(queue, "a") is JobState.PENDING


async def test_as_many_jobs_are_handed_over_as_there_were_free_slots_until_the_worker_claims_again(
    queue: JobQueue, hands: Hands
):
    hand = await waiting(hands, slots=3)
    taken = await put_and_take(queue, hand, "a", "b", "c", "d")
    assert [(told.job_id, told.room) for told in taken] == [("a", 2), ("b", 1), ("c", 0)]
    assert not await hand.is_idle()
    assert await state(queue, "d") is JobState.PENDING
    claim = await hand.wait_for_jobs(2, heard="c")
    assert [one.job.id for one in claim.jobs] == ["d"]
    assert [(told.job_id, told.room) for told in await put_and_take(queue, hand, "e", "f")] == [("e", 0)]


async def test_nobody_is_handed_more_than_sixteen_jobs_between_two_claims(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, slots=200)
    taken = await put_and_take(queue, hand, *(f"j{n:02}" for n in range(18)))
    assert [told.room for told in taken] == list(reversed(range(16)))
    claim = await hand.wait_for_jobs(184, heard="j15")
    assert [one.job.id for one in claim.jobs] == ["j16", "j17"]


async def test_a_worker_that_has_not_said_that_it_has_its_job_is_handed_no_other(queue: JobQueue, hands: Hands):
    """It may be dead, and one job is enough to find out."""
    hand = await waiting(hands, slots=5)
    await put(queue, "a", "b")
    assert await state(queue, "b") is JobState.PENDING
    told, woken = await hand.inbox()
    assert (told.split()[0], woken) == ("job", "wake")
    claim = await hand.wait_for_jobs(4, heard="a")
    assert [one.job.id for one in claim.jobs] == ["b"]


@pytest.mark.parametrize("others", [0, 40])
async def test_another_worker_is_handed_the_job_of_one_that_has_not_said_that_it_has_its_last(
    queue: JobQueue, hands: Hands, others: int
):
    """The silent one may be dead: a job that waits for it would wait until somebody looks by himself."""
    for _ in range(others):
        await waiting(hands, {"other": 0.0})
    silent, ready = await waiting(hands, slots=9), await waiting(hands, slots=9)
    await put(queue, "a")
    taken = await put_and_take(queue, ready, "b", "c", "d")
    assert [told.job_id for told in taken] == ["b", "c", "d"]
    assert [told.job_id for told in await silent.handed()] == ["a"]


async def test_a_worker_that_is_ready_but_silent_goes_before_one_that_has_to_get_ready(queue: JobQueue, hands: Hands):
    silent, cold = await waiting(hands, slots=2), await waiting(hands, {"echo": 500.0})
    await put(queue, "a", "b")
    assert [message.split()[0] for message in await silent.inbox()] == ["job", "wake"]
    assert await cold.inbox() == []


@pytest.mark.parametrize("others", [0, 40])
async def test_jobs_go_round_among_workers_that_wait(queue: JobQueue, hands: Hands, others: int):
    """Whether few workers are idle, or many, of which most serve other lanes."""
    for _ in range(others):
        await waiting(hands, {"other": 0.0})
    waiters = [await waiting(hands, slots=2) for _ in range(3)]
    for _ in range(2):
        await hands()
    order: list[str] = []
    for n in range(6):
        await put(queue, f"j{n}")
        for hand in waiters:
            for told in await hand.handed():
                order.append(hand.name)
                assert await hand.acknowledge(told)
    assert order == [hand.name for hand in waiters] * 2


async def test_a_worker_of_several_services_is_handed_what_fits_into_the_fullest(queue: JobQueue, hands: Hands):
    hand = await hands({"echo": 0.0, "other": 0.0})
    await hand.consumer.claim("t", [(5, ("echo",)), (2, ("other",))], "m", handed="")
    assert [told.room for told in await put_and_take(queue, hand, "a", "b", "c")] == [1, 0]


@pytest.mark.parametrize(
    "spec",
    [
        {"payload": {"text": "x" * 20_000}},
        {"service_required": "other"},
        {"requirements": {"models": ["m"]}},
        {"customer_id": "denied"},
        {"ctx": Destination(storage={"bucket": "pictures", "accountName": "studio7", "accountKey": "geheim"})},
    ],
    ids=["large", "of another service", "of another lane", "of a customer whom it refuses", "with a key of its own"],
)
async def test_other_jobs_wait_in_their_lanes(queue: JobQueue, hands: Hands, spec: dict[str, Any]):
    hand = await waiting(hands, customers_deny=("denied",))
    job = await queue.submit(JobSpec(**{"service_required": "echo", **spec}))
    assert await hand.handed() == []
    assert await state(queue, job.id) is JobState.PENDING


async def test_many_jobs_at_once_wait_in_their_lanes(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    jobs = await queue.submit_many(JobSpec("echo") for _ in range(3))
    assert await hand.inbox() == ["wake"]
    assert {await state(queue, job.id) for job in jobs} == {JobState.PENDING}


async def test_a_worker_that_is_not_ready_for_the_lane_has_to_claim(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, {"echo": 500.0})
    await put(queue, "a")
    assert await hand.inbox() == ["wake"]


async def test_a_job_that_waits_goes_first(queue: JobQueue, hands: Hands):
    """The worker left it to others, say; when it claims now it may find it."""
    hand = await waiting(hands, {"echo": 0.0, "other": 0.0})
    await queue.submit_many([JobSpec("other", id="a")] * 1)
    await queue.client.zadd(queue.keys.fixed("idle"), {hand.name: 1})
    await hand.inbox()
    await queue.submit_many(JobSpec("other") for _ in range(2))
    await queue.client.zadd(queue.keys.fixed("idle"), {hand.name: 1})
    await hand.inbox()
    await put(queue, "b")
    assert await hand.inbox() == ["wake"]
    assert await state(queue, "b") is JobState.PENDING


async def test_what_nobody_serves_keeps_nothing_from_being_handed_over(queue: JobQueue, hands: Hands):
    await queue.submit(JobSpec("nobody"))
    hand = await waiting(hands)
    await put(queue, "a")
    assert (await handed_to(hand)).job_id == "a"


async def test_the_cap_of_a_customer_holds(queue: JobQueue, hands: Hands):
    first = await waiting(hands, customer_cap=1)
    second = await waiting(hands, customer_cap=1)
    await put(queue, "a", "b", customer_id="c")
    [told] = [*await first.handed(), *await second.handed()]
    assert told.job_id == "a"
    assert await state(queue, "b") is JobState.PENDING
    assert (await second.wait_for_jobs()).jobs == ()
    holder = first if first.consumer.claimed(told).job.worker_id == first.name else second
    await holder.finish(holder.consumer.claimed(told))
    assert [one.job.id for one in (await second.wait_for_jobs()).jobs] == ["b"]


async def test_a_customers_older_job_that_another_workers_cap_holds_back_goes_first(queue: JobQueue, hands: Hands):
    narrow = await waiting(hands, customer_cap=1)
    await put(queue, "a", "b", customer_id="c")
    [told] = await narrow.handed()
    assert await narrow.acknowledge(told)
    assert (await narrow.wait_for_jobs(heard="a")).jobs == ()  # it sets b aside
    await queue.client.zrem(queue.keys.fixed("idle"), narrow.name)
    wide = await hands(customer_cap=5)
    assert (await wide.wait_for_jobs()).jobs == ()
    await put(queue, "later", customer_id="c")
    assert await wide.handed() == []
    assert await state(queue, "later") is JobState.PENDING


async def test_the_same_submit_again_changes_nothing(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, slots=3)
    for _ in range(2):
        await queue.submit(JobSpec("echo", id="a", idempotency_key="k"))
    assert (await handed_to(hand)).job_id == "a"
    assert await names_of_events(queue, "a") == ["submitted", "claimed"]


async def test_a_lane_whose_jobs_are_all_handed_over_is_in_use(queue: JobQueue, hands: Hands):
    """Else it would be dropped, opened again and announced to every worker once an hour."""
    hand = await waiting(hands)
    await queue.client.zadd(queue.keys.fixed("lanes_empty"), {"echo": 1}, xx=True)
    await put(queue, "a")
    assert (await handed_to(hand)).job_id == "a"
    await hand.house.sweep(rescue=True)
    assert await queue.client.hexists(queue.keys.fixed("lanes"), "echo")
    assert await hand.inbox() == []


async def test_who_listens_to_all_jobs_hears_of_it_once(queue: JobQueue, hands: Hands):
    await waiting(hands)
    async with queue.client.pubsub() as listener:
        await listener.subscribe(f"{queue.keys.namespace}job:status:update")
        await put(queue, "a", "b")
        heard = [await listener.get_message(timeout=10.0) for _ in range(3)]
    assert [told["data"] for told in heard if told] == [1, "a", "b"]


# -- slots -----------------------------------------------------------------------------------------------------------


async def test_a_claim_that_crossed_a_job_handed_over_takes_none_for_its_slot(queue: JobQueue, hands: Hands):
    hand = await waiting(hands)
    await put(queue, "a", "b")
    claim = await hand.wait_for_jobs(1)  # it has not heard of a
    assert claim.jobs == ()
    assert claim.come_back_s == pytest.approx(0.05)
    assert not await hand.is_idle()
    told = await handed_to(hand)
    assert await hand.acknowledge(told)
    await hand.finish(hand.consumer.claimed(told))
    assert [one.job.id for one in (await hand.wait_for_jobs(1, heard="a")).jobs] == ["b"]


async def test_it_counts_until_it_is_known_to_be_heard_or_lost(queue: JobQueue, hands: Hands):
    """Messages may come late: a worker that claims twice before it hears of its job has a slot less both times."""
    hand = await waiting(hands, slots=3)
    await put(queue, "a", "b", "c", "d")
    assert [one.job.id for one in (await hand.wait_for_jobs(2)).jobs] == ["b"]
    assert (await hand.wait_for_jobs(1)).jobs == ()
    assert await hand.acknowledge(await handed_to(hand))
    assert (await hand.wait_for_jobs(1)).jobs == ()  # on its way since before that
    assert [one.job.id for one in (await hand.wait_for_jobs(1)).jobs] == ["c"]


async def test_it_takes_a_slot_of_its_own_service(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, {"echo": 0.0, "other": 0.0})
    await put(queue, "a")
    await queue.submit_many([JobSpec("echo", id="b"), JobSpec("other", id="c")])
    groups = [(1, ("echo",)), (1, ("other",))]
    claim = await hand.consumer.claim("crossed", groups, "m", handed="")
    assert [one.job.id for one in claim.jobs] == ["c"]
    assert claim.come_back_s == pytest.approx(0.05)


async def test_no_other_job_is_handed_to_a_worker_that_has_not_heard_of_the_last_one(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, slots=3)
    await put(queue, "a")
    assert (await hand.wait_for_jobs(3)).jobs == ()
    assert await hand.is_idle()
    await put(queue, "b")
    assert [one.job_id for one in await hand.handed()] == ["a"]
    assert await state(queue, "b") is JobState.PENDING


async def test_a_worker_that_has_its_job_leaves_its_share_to_others(queue: JobQueue, hands: Hands):
    """One that was woken counts as idle until it comes; this one will not come before it has a free slot again."""
    await waiting(hands)
    await put(queue, "a")
    other = await hands()
    await queue.submit_many(JobSpec("echo") for _ in range(4))
    assert len(await other.ids(4)) == 4


async def test_a_claim_that_crossed_several_jobs_takes_none_for_their_slots(queue: JobQueue, hands: Hands):
    hand = await waiting(hands, slots=4)
    await put_and_take(queue, hand, "a", "b", "c")
    await queue.submit_many(JobSpec("echo", id=f"m{n}") for n in range(4))
    assert (await hand.wait_for_jobs(1, heard="b")).jobs == ()  # it has not heard of c
    assert [one.job.id for one in (await hand.wait_for_jobs(2, heard="c")).jobs] == ["m0", "m1"]
