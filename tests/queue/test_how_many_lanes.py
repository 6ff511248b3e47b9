"""How many lanes there are at once: those without jobs go after a while, and at once when there is no room for another."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve
from redis import Redis

from emp_core.errors import QueueFull
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, make_due, put

SERVICES = ("one", "two", "three", "four")


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


def with_room_for(lanes: int, queue: JobQueue) -> AbstractAsyncContextManager[JobQueue]:
    return JobQueue.connect(settings=evolve(queue.settings, max_lanes=lanes))


async def serving_all(hands: Hands, **changed: Any) -> Hand:
    return await hands(dict.fromkeys(SERVICES, 0.0), **changed)


async def ids(hand: Hand, slots: int = 9) -> list[str]:
    return await hand.ids(slots, services=SERVICES)


async def run(queue: JobQueue, hand: Hand, *services: str) -> None:
    """A job of each service, one after the other, from submit to outcome."""
    for service in services:
        await queue.submit(JobSpec(service))
        await hand.finish(await hand.take_one(services=SERVICES))


async def lanes(hand: Hand) -> set[str]:
    return set((await hand.consumer.lanes())[1])


async def test_a_lane_without_jobs_gives_way_to_a_new_one(queue: JobQueue, hands: Hands):
    hand = await serving_all(hands)
    async with with_room_for(2, queue) as small:
        await run(small, hand, "one", "two")
        await hand.inbox()
        await small.submit(JobSpec("three", id="a"))
    assert await lanes(hand) == {"two", "three"}
    assert await hand.inbox() == ["gone one", "lane three"]
    assert await queue.client.exists(queue.keys.lane_workers("one")) == 0
    assert await queue.client.zscore(queue.keys.worker(hand.name, "lanes"), "one") is None
    assert await ids(hand) == ["a"]


async def test_the_lane_goes_first_that_had_no_jobs_for_longest(queue: JobQueue, hands: Hands):
    hand = await serving_all(hands)
    async with with_room_for(3, queue) as small:
        await run(small, hand, "one", "two", "three", "one")
        await run(small, hand, "four")
        assert await lanes(hand) == {"three", "one", "four"}


async def test_a_lane_with_jobs_gives_way_to_nothing(queue: JobQueue, hands: Hands):
    hand = await serving_all(hands)
    async with with_room_for(2, queue) as small:
        await small.submit_many([JobSpec("one", id="a"), JobSpec("two", id="b")])
        with pytest.raises(QueueFull, match="2 different requirements"):
            await small.submit(JobSpec("three"))
    assert await ids(hand) == ["a", "b"]


async def test_a_lane_whose_jobs_wait_for_their_customers_cap_gives_way_to_nothing(queue: JobQueue, hands: Hands):
    hand = await serving_all(hands, customer_cap=1)
    async with with_room_for(2, queue) as small:
        await small.submit_many(JobSpec(service, id=service, customer_id="c") for service in ("one", "two"))
        [first] = await hand.take(9, services=SERVICES)
        assert await ids(hand) == []
        await small.submit(JobSpec("three", id="a"))  # nothing waits in the lane of the job that runs
        with pytest.raises(QueueFull):
            await small.submit(JobSpec("four"))
        assert await lanes(hand) == {"two", "three"}
        await hand.finish(first)
    assert sorted(await ids(hand)) == ["a", "two"]


async def test_jobs_keep_the_lane_that_they_enter_with_the_same_call(queue: JobQueue, hands: Hands):
    hand = await serving_all(hands)
    async with with_room_for(2, queue) as small:
        await run(small, hand, "one", "two")
        await small.submit_many([JobSpec("one", id="a"), JobSpec("three", id="b"), JobSpec("one", id="c")])
        assert await lanes(hand) == {"one", "three"}
        with pytest.raises(QueueFull):
            await small.submit_many([JobSpec("three", id="d"), JobSpec("two", id="e")])
    await hand.register({"three": 0.0}, reset=False)
    assert sorted(await ids(hand)) == ["a", "b", "c", "d"]


async def test_a_lane_that_gave_way_is_a_new_one_for_the_jobs_behind_in_the_same_call(queue: JobQueue, hands: Hands):
    later = datetime.now(UTC) + timedelta(hours=1)
    async with with_room_for(1, queue) as small:
        await small.submit_many(
            [JobSpec("one", start_at=later), JobSpec("two", start_at=later), JobSpec("one", id="a")]
        )
    hand = await serving_all(hands)
    assert await lanes(hand) == {"one"}
    assert await ids(hand) == ["a"]


async def test_a_worker_serves_a_lane_again_that_had_given_way(
    queue: JobQueue, start_worker: Callable[[], Awaitable[object]]
):
    await start_worker()
    async with with_room_for(2, queue) as small:
        for number in (1, 2, 3, 1, 2, 3, 3, 1):
            job = await small.submit(JobSpec("echo", requirements={"exclude": {"rank": number}}))
            assert (await small.wait(job.id, timeout=10)).status == "completed"
    assert await queue.client.hlen(queue.keys.fixed("lanes")) == 2


@pytest.mark.parametrize("way", ["given back", "lost", "due"])
async def test_a_job_that_was_elsewhere_finds_its_lane_again(queue: JobQueue, hands: Hands, way: str):
    hand = await serving_all(hands)
    later = datetime.now(UTC) + timedelta(hours=1) if way == "due" else None
    async with with_room_for(1, queue) as small:
        await small.submit(JobSpec("one", id="a", start_at=later))
        taken = await hand.take(1, services=SERVICES)
        await small.submit(JobSpec("two"))
    assert await lanes(hand) == {"two"}
    match way:
        case "given back":
            await hand.finish(taken[0], "release")
        case "lost":
            await make_due(queue, "active", "a")
            await hand.house.sweep(rescue=True)
        case _:
            await make_due(queue, "scheduled", "a")
            await hand.house.sweep(rescue=True)
    assert await lanes(hand) == {"one", "two"}
    await hand.register({"one": 0.0}, reset=False)
    assert "a" in await ids(hand)


@pytest.mark.parametrize("way", ["run", "cancelled"])
async def test_a_lane_goes_when_the_jobs_that_waited_for_their_customers_cap_are_gone(
    queue: JobQueue, hands: Hands, way: str
):
    hand = await hands(customer_cap=1)
    await put(queue, "a", "b", customer_id="c")
    [first] = await hand.take(9)
    assert await hand.ids(9) == []
    await make_due(queue, "lanes_empty", "echo")
    await hand.house.sweep(rescue=True)
    assert await lanes(hand) == {"echo"}
    if way == "cancelled":
        await queue.cancel("b")
    await hand.finish(first)
    if way == "run":
        await hand.finish(await hand.take_one())
    await make_due(queue, "lanes_empty", "echo")
    await hand.house.sweep(rescue=True)
    assert await lanes(hand) == set()


async def test_looking_for_lanes_that_may_go_does_not_take_longer_with_more_customers(
    queue: JobQueue, hands: Hands, server: Redis
):
    hand = await serving_all(hands)

    async def commands_of_a_sweep() -> int:
        await run(queue, hand, *SERVICES)
        for lane in SERVICES:
            await make_due(queue, "lanes_empty", lane)
        before = commands(server)
        await hand.house.sweep(rescue=True)
        assert await lanes(hand) <= {"echo"}
        return commands(server) - before

    await hand.house.sweep(rescue=True)
    with_none = await commands_of_a_sweep()
    await hand.register({"echo": 0.0, **dict.fromkeys(SERVICES, 0.0)}, reset=False)
    await queue.submit_many(JobSpec("echo", customer_id=f"c{i}") for i in range(50))
    assert len(await hand.ids(50)) == 50
    assert await commands_of_a_sweep() == with_none


def commands(server: Redis) -> int:
    """How many commands Redis carried out, those of scripts included."""
    return sum(told["calls"] for name, told in server.info("commandstats").items() if name != "cmdstat_info")
