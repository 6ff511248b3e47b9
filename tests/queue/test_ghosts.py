"""Ghosts: jobs whose data is gone, because somebody deleted it or Redis threw it away. Nothing waits for them for ever."""

import itertools
from datetime import UTC, datetime, timedelta

import anyio
from redis import Redis

from emp_core.jobs.model import JobSpec
from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import JobQueue
from emp_core.testing.leaks import disowned, take_snapshot

from .hands import Hands, end_lease, names_of_events, put

FAR = datetime(2099, 1, 1, tzinfo=UTC)


async def lose_data(queue: JobQueue, *ids: str) -> None:
    """Their hashes go, and all else stays."""
    await queue.client.delete(*map(queue.keys.job, ids))


async def running(queue: JobQueue) -> dict[str, str]:
    """How many jobs each customer runs, as it is counted."""
    counted: dict[str, str] = await queue.client.hgetall(queue.keys.fixed("customers_active"))
    return counted


async def contradictions(queue: JobQueue, redis_url: str) -> list[str]:
    """What does not agree with each other in Redis, or belongs to nobody."""

    def look() -> list[str]:
        with Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
            return disowned(take_snapshot(client, queue.keys.namespace))

    return await anyio.to_thread.run_sync(look)


# -- those that ran ----------------------------------------------------------------------------------------------------


async def test_one_that_ran_gives_its_customer_the_slot_back(queue: JobQueue, hands: Hands, redis_url: str):
    await put(queue, "ghost", "following", customer_id="c")
    hand = await hands(customer_cap=1)
    assert await hand.ids(2) == ["ghost"]
    assert await hand.ids(1) == []
    await lose_data(queue, "ghost")
    await end_lease(queue, "ghost")
    await hand.house.sweep(rescue=True)
    await hand.inbox()
    assert await hand.house.recount() == {"c": 1}
    assert await running(queue) == {}
    assert await hand.inbox() == ["wake"]
    assert await hand.ids(1) == ["following"]
    assert await contradictions(queue, redis_url) == []


async def test_it_gives_the_slot_back_once_though_its_lease_ends_later(queue: JobQueue, hands: Hands):
    await put(queue, "ghost", "other", customer_id="c")
    hand = await hands(customer_cap=2)
    assert await hand.ids(2) == ["ghost", "other"]
    await lose_data(queue, "ghost")
    assert await hand.house.recount() == {"c": 1}
    await end_lease(queue, "ghost")
    await hand.house.sweep(rescue=True)
    assert await hand.house.recount() == {}
    assert await running(queue) == {"c": "1"}


async def test_what_is_counted_too_low_is_put_right_too(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", customer_id="c")
    hand = await hands()
    claimed = await hand.take(2)
    await queue.client.hdel(queue.keys.fixed("customers_active"), "c")
    assert await hand.house.recount() == {"c": -2}
    assert await running(queue) == {"c": "2"}
    await hand.finish(claimed[0])
    assert await hand.house.recount() == {}
    assert await running(queue) == {"c": "1"}


async def test_counting_anew_changes_nothing_when_all_is_well(queue: JobQueue, hands: Hands):
    hand = await hands(customer_cap=1)
    assert await hand.house.recount() == {}
    await put(queue, "a1", "a2", customer_id="a")
    await put(queue, "b1", customer_id="b")
    await put(queue, "nobodys")
    assert len(await hand.ids(4)) == 3
    await hand.inbox()
    assert await hand.house.recount() == {}
    assert await running(queue) == {"a": "1", "b": "1"}
    assert await hand.inbox() == []
    assert await hand.ids(1) == []


async def test_customers_are_counted_right_while_jobs_begin_and_end(queue: JobQueue, hands: Hands):
    hand, keeping = await hands(), await hands({})
    wrong: list[dict[str, int]] = []

    async def work() -> None:
        for number in range(40):
            await queue.submit_many(JobSpec("echo", customer_id=f"c{number % 3}") for _ in range(4))
            for claimed in await hand.take(4):
                await hand.finish(claimed)
        tasks.cancel_scope.cancel()

    async def count() -> None:
        while True:
            wrong.append(await keeping.house.recount())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        tasks.start_soon(work)
    assert wrong
    assert not any(wrong)
    assert await running(queue) == {}


async def test_many_that_run_are_counted_in_pieces(queue: JobQueue, hands: Hands):
    hand = await hands()
    jobs = await queue.submit_many(JobSpec("echo", customer_id=f"c{n % 2}") for n in range(450))
    assert len(await hand.ids(450)) == 450
    await lose_data(queue, *(job.id for job in jobs[:10]))
    assert await hand.house.recount() == {"c0": 5, "c1": 5}
    assert await running(queue) == {"c0": "220", "c1": "220"}
    for job in jobs[:10]:
        await end_lease(queue, job.id)
    await hand.house.sweep(rescue=True)


# -- those that wait ---------------------------------------------------------------------------------------------------


async def test_those_that_wait_where_nobody_serves_are_taken_out(queue: JobQueue, hands: Hands, redis_url: str):
    hand = await hands()
    await put(queue, "opener")
    await queue.submit_many(JobSpec("paint", id=one, customer_id="c") for one in ("ghost", "behind", "ghost2"))
    await queue.submit(JobSpec("draw", id="ghost3"))
    await queue.client.hdel(queue.keys.job("behind"), "unserved")
    told = len(await names_of_events(queue, "behind"))
    await lose_data(queue, "ghost", "ghost2", "ghost3")
    assert await hand.house.tell_unserved() == 1
    assert len(await names_of_events(queue, "behind")) == told + 1
    assert (await queue.health()).waiting == 2
    assert await contradictions(queue, redis_url) == []


async def test_one_that_is_named_by_an_index_alone_is_forgotten(queue: JobQueue, hands: Hands, redis_url: str):
    hand = await hands()
    await put(queue, "later", start_at=FAR, deadline_at=FAR + timedelta(days=1))
    await put(queue, "stays", "stays2", start_at=FAR)
    await queue.client.zadd(queue.keys.index("pending"), {"ghost": 1})
    await lose_data(queue, "later")
    assert sorted(await hand.house.audit(await hand.house.named_jobs(100))) == ["ghost", "later"]
    assert await hand.house.audit(await hand.house.named_jobs(100)) == []
    assert await contradictions(queue, redis_url) == []
    assert sorted(job.id for job in await queue.jobs()) == ["stays", "stays2"]


async def test_all_that_the_indexes_name_is_looked_at_in_turn(queue: JobQueue, hands: Hands):
    hand = await hands()
    jobs = [job.id for job in await queue.submit_many(JobSpec("echo") for _ in range(250))]
    looks = [await hand.house.named_jobs(100) for _ in range(4)]
    assert [len(look) for look in looks] == [100, 100, 50, 100]
    assert sorted({one for look in looks for one in look}) == sorted(jobs)


async def test_what_is_left_of_one_goes_when_it_is_met(queue: JobQueue, hands: Hands, redis_url: str):
    hand = await hands()
    await put(queue, "ran", customer_id="c")
    assert await hand.ids(1) == ["ran"]
    await put(queue, "waited", "a")
    await lose_data(queue, "ran", "waited")
    assert await hand.ids(2) == ["a"]
    await end_lease(queue, "ran")
    await hand.house.sweep(rescue=True)
    await hand.house.recount()
    assert await contradictions(queue, redis_url) == []


async def test_one_is_not_left_to_a_warmer_worker_with_all_that_wait_behind_it(queue: JobQueue, hands: Hands):
    await hands(name="warm")
    cold = await hands({"echo": 60_000.0}, name="cold")
    await put(queue, "ghost", "ghost2", "waits")
    await queue.client.hset(queue.keys.job("waits"), "created_at", "1")
    await lose_data(queue, "ghost", "ghost2")
    assert await cold.ids(1) == ["waits"]


# -- who looks ---------------------------------------------------------------------------------------------------------


async def test_the_keeper_heals_them_by_itself(queue: JobQueue, hands: Hands, redis_url: str):
    await put(queue, "ran", "following", customer_id="c")
    hand = await hands(customer_cap=1)
    assert await hand.ids(2) == ["ran"]
    assert await hand.ids(1) == []
    await put(queue, "later", start_at=FAR)
    await queue.submit(JobSpec("paint", id="waits"))
    await lose_data(queue, "ran", "later", "waits")
    await end_lease(queue, "ran")
    now = itertools.count(0.0, 3.0)
    keeper = Keeper(hand.house, queue.settings.lease_s, clock=lambda: next(now))
    for _ in range(4):
        await keeper._round()
    assert await contradictions(queue, redis_url) == []
    assert await hand.ids(2) == ["following"]
    assert (await queue.health()).problems == ()
