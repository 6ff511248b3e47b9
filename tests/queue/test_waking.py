"""Hand-off: a job wakes the one worker that can begin it soonest, and nobody else."""

from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from emp_core.errors import QueueFull
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, make_due, put


async def idle(hands: Hands, *penalties_ms: float, **how) -> list[Hand]:
    """Idle workers with these penalties for the lane ``echo``."""
    made = [await hands({"echo": penalty}, **how) for penalty in penalties_ms]
    for hand in made:
        assert await hand.ids(2) == []
        assert await hand.is_idle()
    return made


async def woken(workers: list[Hand]) -> list[int]:
    """Which of the workers were woken, by their numbers."""
    return [i for i, hand in enumerate(workers) if "wake" in await hand.inbox()]


async def open_echo(queue: JobQueue, hands: Hands) -> None:
    """Make the lane known, as any earlier job would have."""
    await put(queue, "opener")
    hand = await hands()
    await hand.finish(await hand.take_one())
    await hand.consumer.retire()


async def test_a_job_wakes_one_worker(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    workers = await idle(hands, *[0.0] * 5)
    await put(queue, "a")
    assert len(await woken(workers)) == 1


async def test_the_worker_with_the_smallest_penalty_is_woken(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    workers = await idle(hands, 900.0, 300.0, 600.0)
    await put(queue, "a")
    assert await woken(workers) == [1]
    await put(queue, "b")
    assert await woken(workers) == [2]


@pytest.mark.parametrize("best", [0, 37, 99])
async def test_the_best_of_many_is_found(queue: JobQueue, hands: Hands, best: int):
    """Where more are idle than are looked at in one go, whichever side is the smaller one."""
    await open_echo(queue, hands)
    workers = await idle(hands, *[5.0 if i == best else 10.0 + i for i in range(100)])
    for _ in range(50):
        other = await hands({"elsewhere": 0.0})
        await other.ids(1, services=("elsewhere",))
    await put(queue, "a")
    assert await woken(workers) == [best]


async def test_a_hundred_jobs_wake_as_many_workers_as_there_are(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    workers = await idle(hands, 0.0, 0.0, 0.0)
    await queue.submit_many(JobSpec("echo") for _ in range(100))
    assert await woken(workers) == [0, 1, 2]


async def test_a_dead_worker_is_not_waited_for(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    workers = await idle(hands, 0.0, 10.0)
    await make_due(queue, "workers", workers[0].name)
    await put(queue, "a")
    assert await woken(workers) == [1]


async def test_a_busy_worker_is_not_woken(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    busy, free = await idle(hands, 0.0, 10.0)
    await put(queue, "a")
    assert await busy.ids(1) == ["a"]
    assert not await busy.is_idle()
    await busy.inbox()
    await put(queue, "b")
    assert await woken([busy, free]) == [1]


async def test_a_worker_that_does_not_serve_the_lane_is_not_woken(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    [able] = await idle(hands, 10.0)
    other = await hands({"elsewhere": 0.0})
    await other.ids(1)
    await put(queue, "a")
    assert await woken([other, able]) == [1]


async def test_a_worker_whose_slots_for_the_service_are_taken_is_not_woken(queue: JobQueue, hands: Hands):
    """It has free slots, but of another service."""
    await open_echo(queue, hands)
    full = await hands({"echo": 0.0, "other": 0.0})
    await put(queue, "a")
    assert await full.ids(groups=[(1, ("echo",)), (1, ("other",))]) == ["a"]
    assert await full.ids(groups=[(1, ("other",))]) == []
    assert await full.is_idle()
    [free] = await idle(hands, 10.0)
    await put(queue, "b")
    assert await woken([full, free]) == [1]
    await queue.submit(JobSpec("other", id="c"))
    assert await woken([full, free]) == [0]


@pytest.mark.parametrize("lists", [{"customers_deny": ("c",)}, {"customers_allow": ("d",)}])
async def test_a_worker_that_refuses_the_customer_is_not_woken(queue: JobQueue, hands: Hands, lists: dict[str, Any]):
    await open_echo(queue, hands)
    [refusing] = await idle(hands, 0.0, **lists)
    [taking] = await idle(hands, 10.0)
    await put(queue, "a", customer_id="c")
    assert await woken([refusing, taking]) == [1]
    await put(queue, "b", customer_id="d")
    assert await woken([refusing, taking]) == [0]


async def test_what_a_worker_leaves_wakes_two_more(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    busy = await hands()
    await queue.submit_many(JobSpec("echo") for _ in range(9))
    workers = await idle_without_claim(queue, hands, 3)
    assert len(await busy.ids(2)) == 2
    assert len(await woken(workers)) == 2


async def test_a_lane_that_nobody_serves_keeps_nobody_asleep(queue: JobQueue, hands: Hands):
    """A worker may take another job than the one that it was woken for."""
    await open_echo(queue, hands)
    busy = await hands()
    await queue.submit(JobSpec("elsewhere"))
    await put(queue, "a", "b")
    workers = await idle_without_claim(queue, hands, 1)
    assert await busy.ids(1) == ["a"]
    assert await woken(workers) == [0]


async def test_what_a_worker_leaves_because_one_of_its_services_is_full_wakes_others(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    busy = await hands({"echo": 0.0, "other": 0.0})
    await put(queue, "a", "b", "c", "d")
    workers = await idle_without_claim(queue, hands, 1)
    assert await busy.ids(groups=[(1, ("echo",)), (1, ("other",))]) == ["a"]
    assert await woken(workers) == [0]


async def idle_without_claim(queue: JobQueue, hands: Hands, count: int) -> list[Hand]:
    """Workers that stand among the idle ones though there is work, as if they had just been passed over."""
    made = [await hands() for _ in range(count)]
    await queue.client.zadd(queue.keys.fixed("idle"), {hand.name: 1 for hand in made})
    return made


async def test_a_worker_takes_no_more_than_its_share_while_others_are_idle(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    hand = await hands()
    await queue.submit_many(JobSpec("echo") for _ in range(10))
    await idle_without_claim(queue, hands, 3)
    assert len(await hand.ids(10)) == 3


async def test_a_burst_is_shared_by_the_workers_that_it_woke(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    workers = await idle(hands, 0.0, 0.0, 0.0, 0.0)
    await queue.submit_many(JobSpec("echo") for _ in range(8))
    assert await woken(workers) == [0, 1, 2, 3]
    now = int((await queue.client.time())[0]) * 1_000_000 + 60_000_000
    await queue.client.zadd(queue.keys.fixed("woken"), dict.fromkeys(await names_woken(queue), now))
    assert [len(await worker.ids(10)) for worker in workers] == [2, 2, 1, 1]  # the rest is for those with most room


async def names_woken(queue: JobQueue) -> list[str]:
    names: list[str] = await queue.client.zrange(queue.keys.fixed("woken"), 0, -1)
    return names


async def test_a_job_that_comes_back_wakes_a_worker(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    holder = await hands()
    claimed = await holder.take_one()
    workers = await idle(hands, 0.0)
    await holder.finish(claimed, "release")
    assert await woken(workers) == [0]


async def test_a_promoted_job_wakes_a_worker(queue: JobQueue, hands: Hands):
    from datetime import UTC, datetime, timedelta

    await put(queue, "a", start_at=datetime.now(UTC) + timedelta(hours=1))
    workers = await idle(hands, 0.0)
    await make_due(queue, "scheduled", "a")
    await workers[0].house.sweep(rescue=True)
    assert await woken(workers) == [0]


async def test_a_new_lane_is_told_to_every_live_worker(queue: JobQueue, hands: Hands):
    busy, other, dead = await hands({}), await hands({"elsewhere": 0.0}), await hands()
    await make_due(queue, "workers", dead.name)
    await put(queue, "a")
    assert await busy.inbox() == ["lane echo"]
    assert await other.inbox() == ["lane echo"]
    assert await dead.inbox() == []
    await put(queue, "b")
    assert "lane echo" not in await other.inbox()


async def test_the_version_of_the_lanes_grows_with_each(queue: JobQueue, hands: Hands):
    hand = await hands()
    versions = []
    for name in ("one", "two", "two", "three"):
        await queue.submit(JobSpec(name))
        versions.append((await hand.claim(1)).lanes_version)
    assert [after - before for before, after in pairwise(versions)] == [1, 0, 1]
    assert set((await hand.consumer.lanes())[1]) == {"one", "two", "three"}
    assert await hand.consumer.lanes(["two", "nine"]) == (versions[-1], {"two": '{"service":"two"}'})


async def test_an_idle_lane_goes_and_those_who_served_it_are_told(queue: JobQueue, hands: Hands):
    await open_echo(queue, hands)
    hand = await hands()
    await make_due(queue, "lanes_empty", "echo")
    await hand.house.sweep(rescue=True)
    assert (await hand.consumer.lanes())[1] == {}
    assert await hand.inbox() == ["gone echo"]
    assert await queue.client.exists(queue.keys.lane_workers("echo")) == 0
    assert await queue.client.zscore(queue.keys.worker(hand.name, "lanes"), "echo") is None


async def test_a_lane_with_jobs_does_not_go(queue: JobQueue, hands: Hands):
    hand = await hands()
    await put(queue, "a")
    await queue.client.zadd(queue.keys.fixed("lanes_empty"), {"echo": 1})
    await hand.house.sweep(rescue=True)
    assert "echo" in (await hand.consumer.lanes())[1]


async def test_there_are_no_more_lanes_than_may_be(queue: JobQueue):
    async with JobQueue.connect(settings=evolve(queue.settings, max_lanes=2)) as small:
        await small.submit_many([JobSpec("one"), JobSpec("two"), JobSpec("one")])
        with pytest.raises(QueueFull, match="2 different requirements"):
            await small.submit(JobSpec("three"))
        await small.submit(JobSpec("two"))


async def test_a_lane_that_is_taken_up_says_whether_it_has_work(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands({})
    assert (await hand.consumer.set_lanes({"nothing": 0.0}, [], reset=False))[2] is False
    assert (await hand.consumer.set_lanes({"echo": 0.0}, [], reset=False))[2] is True
    assert (await hand.consumer.set_lanes({"echo": None}, [], reset=False))[2] is False
    assert await hand.ids(1) == []
