"""How many jobs of one customer run at once: a customer at its cap is set aside, and every way out of active brings it back."""

from collections.abc import Awaitable, Callable

import pytest

from emp_core.jobs.model import JobSpec
from emp_core.queue.consumer import ClaimedJob
from emp_core.queue.queue import JobQueue

from .hands import SECOND, Hand, Hands, end_lease, put


async def lose(queue: JobQueue, hand: Hand, claimed: ClaimedJob) -> None:
    await end_lease(queue, claimed.job.id)
    await hand.house.sweep(rescue=True)


def by_finish(decision: str, delay_s: float = 0.0) -> Callable[[JobQueue, Hand, ClaimedJob], Awaitable[object]]:
    return lambda queue, hand, claimed: hand.finish(claimed, decision, delay_s=delay_s)


async def cancelled_and_released(queue: JobQueue, hand: Hand, claimed: ClaimedJob) -> None:
    await queue.cancel(claimed.job.id)
    await hand.finish(claimed, "release")


async def cancelled_and_lost(queue: JobQueue, hand: Hand, claimed: ClaimedJob) -> None:
    await queue.cancel(claimed.job.id)
    await lose(queue, hand, claimed)


async def ended_halfway(queue: JobQueue, hand: Hand, claimed: ClaimedJob) -> None:
    """The script that recorded the outcome was aborted before it took the job out of active."""
    await queue.client.hset(queue.keys.job(claimed.job.id), "status", "completed")
    seconds, _ = await queue.client.time()
    await queue.client.zadd(queue.keys.index("completed"), {claimed.job.id: seconds * SECOND})
    await lose(queue, hand, claimed)


WAYS_OUT: dict[str, Callable[[JobQueue, Hand, ClaimedJob], Awaitable[object]]] = {
    "completed": by_finish("completed"),
    "failed": by_finish("failed"),
    "cancelled": by_finish("cancelled"),
    "retried": by_finish("retry", 60.0),
    "retried at once": by_finish("retry"),
    "released": by_finish("release"),
    "lost": lose,
    "cancelled and released": cancelled_and_released,
    "cancelled and lost": cancelled_and_lost,
    "ended halfway": ended_halfway,
}


async def test_a_customer_runs_no_more_jobs_than_its_cap(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    await put(queue, "b1", "b2", customer_id="b")
    hand = await hands(customer_cap=2)
    assert await hand.ids(5) == ["a1", "b1", "a2", "b2"]
    assert await hand.ids(5) == []


async def test_jobs_of_nobody_have_no_cap(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    assert await (await hands(customer_cap=1)).ids(3) == ["a", "b", "c"]


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_every_way_out_of_active_makes_room_and_wakes_a_worker(queue: JobQueue, hands: Hands, way: str):
    await put(queue, "a1", "a2", customer_id="a")
    await queue.submit(JobSpec("echo", id="a3", customer_id="a", requirements={"models": ["m"]}))
    lane = (await queue.get("a3")).lane
    hand = await hands({"echo": 0.0, lane: 0.0}, customer_cap=1)
    [first] = await hand.take(3)
    await hand.inbox()
    assert await hand.ids(3) == []
    assert await hand.is_idle()
    await WAYS_OUT[way](queue, hand, first)
    assert "wake" in await hand.inbox()
    assert len(await hand.ids(3)) == 1


async def test_a_job_that_waits_at_the_cap_can_be_cancelled(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    hand = await hands(customer_cap=1)
    first = await hand.take_one()
    assert await hand.ids(3) == []
    await queue.cancel("a2")
    await queue.cancel("a3")
    await hand.finish(first)
    assert await hand.ids(3) == []


async def test_a_job_that_comes_while_its_customer_is_at_the_cap_waits_as_well(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", customer_id="a")
    hand = await hands(customer_cap=1)
    first = await hand.take_one()
    assert await hand.ids(3) == []
    await put(queue, "urgent", customer_id="a", priority=90)
    assert await hand.ids(3) == []
    await hand.finish(first)
    assert await hand.ids(3) == ["urgent"]


async def test_a_customer_at_its_cap_leaves_the_others_their_order(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", customer_id="a")
    hand = await hands(customer_cap=1)
    await hand.take_one()
    await put(queue, "b1", customer_id="b")
    await put(queue, "c1", customer_id="c")
    assert await hand.ids(3) == ["b1", "c1"]


async def test_a_lane_whose_customers_are_all_at_their_cap_does_not_go(queue: JobQueue, hands: Hands):
    """However long that takes: its jobs must be found when there is room."""
    await put(queue, "a1", "a2", customer_id="a")
    hand = await hands(customer_cap=1)
    first = await hand.take_one()
    assert await hand.ids(3) == []
    await queue.client.zadd(queue.keys.fixed("lanes_empty"), {"echo": 1}, xx=True)
    await hand.house.sweep(rescue=True)
    await hand.finish(first)
    assert await (await hands()).ids(3) == ["a2"]
    assert "echo" in (await hand.consumer.lanes())[1]
