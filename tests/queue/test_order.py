"""Whose job is next: priority as a head start, first in first out, and customers by turns."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue

from .hands import Hands, end_lease, put


def model(name: str) -> dict[str, list[str]]:
    """Requirements of a lane of their own."""
    return {"models": [name]}


async def lanes_of(queue: JobQueue, *names: str) -> dict[str, float]:
    """The lanes of jobs with these models."""
    return {JobSpec("echo", requirements=model(name)).requirement.lane: 0.0 for name in names}


async def test_first_in_is_first_out(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c", "d")
    hand = await hands()
    assert await hand.ids(1) + await hand.ids(3) == ["a", "b", "c", "d"]


async def test_more_priority_is_sooner(queue: JobQueue, hands: Hands):
    for name, priority in (("low", 0), ("mid", 50), ("top", 100), ("mid2", 50)):
        await put(queue, name, priority=priority)
    assert await (await hands()).ids(4) == ["top", "mid", "mid2", "low"]


async def test_priority_is_a_head_start_so_that_nothing_waits_for_ever(queue: JobQueue, hands: Hands):
    """One point is a microsecond here; the second job comes later than that."""
    async with JobQueue.connect(settings=evolve(queue.settings, priority_step_s=1e-6)) as hasty:
        await put(hasty, "waited", priority=50)
        await put(hasty, "urgent", priority=51)
    assert await (await hands()).ids(2) == ["waited", "urgent"]


async def test_without_customers_order_holds_across_lanes(queue: JobQueue, hands: Hands):
    for i, name in enumerate("abababba"):
        await put(queue, f"{i}{name}", requirements=model(name))
    await put(queue, "8top", priority=60, requirements=model("b"))
    hand = await hands(await lanes_of(queue, "a", "b"))
    taken = [one for _ in range(9) for one in await hand.ids(1)]
    assert taken == ["8top", "0a", "1b", "2a", "3b", "4a", "5b", "6b", "7a"]


async def test_without_customers_order_holds_within_one_call(queue: JobQueue, hands: Hands):
    for i, name in enumerate("aabbbaab"):
        await put(queue, f"{i}{name}", requirements=model(name))
    hand = await hands(await lanes_of(queue, "a", "b"))
    assert await hand.ids(8) == ["0a", "1a", "2b", "3b", "4b", "5a", "6a", "7b"]


async def test_order_across_lanes_survives_a_cancelled_job(queue: JobQueue, hands: Hands):
    """The best job of a line gives it its turn; when it goes, the turn goes with it."""
    await put(queue, "urgent", priority=100, requirements=model("a"))
    await put(queue, "first", requirements=model("b"))
    await put(queue, "second", requirements=model("a"))
    await queue.cancel("urgent")
    hand = await hands(await lanes_of(queue, "a", "b"))
    assert await hand.ids(1) == ["first"]
    assert await hand.ids(1) == ["second"]


async def test_many_jobs_of_one_customer_do_not_delay_the_single_job_of_another(queue: JobQueue, hands: Hands):
    await queue.submit_many(JobSpec("echo", customer_id="many") for _ in range(10_000))
    hand = await hands()
    await hand.ids(1)
    await put(queue, "single", customer_id="few")
    assert "single" in await hand.ids(1) + await hand.ids(1)
    await queue.client.delete(*[key async for key in queue.client.scan_iter(f"{queue.keys.namespace}*", count=5000)])


@pytest.mark.parametrize("slots", [1, 4, 12])
async def test_customers_take_turns(queue: JobQueue, hands: Hands, slots: int):
    """However many jobs a call takes."""
    for customer in ("a", "b", "c"):
        await queue.submit_many(JobSpec("echo", id=f"{customer}{i:02}", customer_id=customer) for i in range(20))
    hand = await hands()
    taken: list[str] = []
    while len(taken) < 36:
        taken += await hand.ids(slots)
    assert [sum(one[0] == customer for one in taken) for customer in "abc"] == [12, 12, 12]
    assert sorted(taken, key=lambda one: one[0]) == [f"{c}{i:02}" for c in "abc" for i in range(12)]


async def test_a_customer_that_comes_late_does_not_catch_up(queue: JobQueue, hands: Hands):
    """Turns are not saved up: only the first one is before those who had theirs."""
    hand = await hands()
    await queue.submit_many(JobSpec("echo", id=f"a{i}", customer_id="a") for i in range(10))
    await hand.ids(4)
    await queue.submit_many(JobSpec("echo", id=f"b{i}", customer_id="b") for i in range(10))
    taken = [one for _ in range(8) for one in await hand.ids(1)]
    assert [sum(one[0] == customer for one in taken) for customer in "ab"] in ([4, 4], [3, 5], [5, 3])


async def test_priority_counts_between_customers_as_well(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", customer_id="a")
    await put(queue, "b1", customer_id="b", priority=90)
    assert await (await hands()).ids(3) == ["b1", "a1", "a2"]


async def test_a_start_in_the_past_takes_nothing_from_the_head_start(queue: JobQueue, hands: Hands):
    """A customer joins again at now, less the head start of its next job."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    await put(queue, "a1", "a2", customer_id="a", priority=100, start_at=long_ago)
    await put(queue, "b1", "b2", customer_id="b", priority=0)
    assert await (await hands()).ids(4) == ["a1", "a2", "b1", "b2"]


async def test_a_rescued_job_keeps_its_place(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    hand = await hands()
    assert await hand.ids(1) == ["a"]
    await end_lease(queue, "a")
    await hand.house.sweep(rescue=True)
    assert await hand.ids(3) == ["a", "b", "c"]


@pytest.mark.parametrize("decision", ["retry", "release"])
async def test_a_job_that_is_put_back_keeps_its_place(queue: JobQueue, hands: Hands, decision: str):
    await put(queue, "a", "b", "c")
    hand = await hands()
    await hand.finish(await hand.take_one(), decision)
    assert await hand.ids(3) == ["a", "b", "c"]


async def test_services_of_one_worker_have_slots_of_their_own(queue: JobQueue, hands: Hands):
    for i in range(4):
        await put(queue, f"e{i}")
        await queue.submit(JobSpec("other", id=f"o{i}"))
    hand = await hands({"echo": 0.0, "other": 0.0})
    assert await hand.ids(groups=[(1, ("echo",)), (2, ("other",))]) == ["e0", "o0", "o1"]
    assert await hand.ids(groups=[(2, ("echo", "other"))]) == ["e1", "e2"]


async def test_a_worker_with_more_lanes_than_it_looks_at_in_one_go_finds_the_best(queue: JobQueue, hands: Hands):
    names = [f"m{i:03}" for i in range(120)]
    for i, name in enumerate(names):
        await put(queue, name, requirements=model(name), priority=90 if i == 100 else 50)
    hand = await hands(await lanes_of(queue, *names[60:]))
    assert (await hand.ids(1), await hand.ids(3)) == (["m100"], ["m060", "m061", "m062"])


async def test_cancelling_a_job_does_not_give_its_customer_the_turn_back(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    await put(queue, "b1", "b2", customer_id="b")
    hand = await hands()
    assert await hand.ids(1) == ["a1"]
    await queue.cancel("a2")
    assert await hand.ids(1) == ["b1"]
