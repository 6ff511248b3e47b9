"""Nothing stays for ever: final jobs, idempotency keys, dead workers and lanes go when their time is over."""

from typing import Any

import pytest

from emp_core.errors import JobNotFound
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue

from .hands import Hands, make_due, put

DAY = 86_400


async def end_as(queue: JobQueue, hands: Hands, status: str) -> None:
    await put(queue, "a")
    hand = await hands()
    await hand.finish(await hand.take_one(), status)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_final_job_is_deleted_when_it_was_kept_for_long_enough(queue: JobQueue, hands: Hands, status: str):
    await end_as(queue, hands, status)
    sweeper = (await hands()).house
    assert (await sweeper.sweep(rescue=True)).trimmed == 0
    await make_due(queue, status, "a")
    assert (await sweeper.sweep(rescue=True)).trimmed == 1
    with pytest.raises(JobNotFound):
        await queue.get("a")
    left = [key async for key in queue.client.scan_iter(f"{queue.keys.namespace}jobs:*")]
    assert left == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_each_final_state_has_its_own_time(queue: JobQueue, hands: Hands, status: str):
    await end_as(queue, hands, status)
    keep: dict[str, Any] = {f"keep_{one}_s": 10_000.0 * DAY for one in ("completed", "failed", "cancelled")}
    sweeper = await hands(**{**keep, f"keep_{status}_s": 1.0})
    await queue.client.zincrby(queue.keys.index(status), -2_000_000, "a")
    assert (await sweeper.house.sweep(rescue=True)).trimmed == 1


async def test_a_retried_job_is_not_deleted_with_those_that_ended_when_it_did(queue: JobQueue, hands: Hands):
    await end_as(queue, hands, "failed")
    await make_due(queue, "failed", "a")
    await queue.retry("a")
    hand = await hands()
    await hand.house.sweep(rescue=True)
    assert await hand.ids(1) == ["a"]


async def test_an_idempotency_key_expires(queue: JobQueue):
    await put(queue, "a", idempotency_key="k")
    ttl_ms = await queue.client.pttl(f"{queue.keys.namespace}idem:k")
    assert 0 < ttl_ms <= queue.settings.keep_idempotency_s * 1000


async def test_a_dead_worker_is_forgotten_with_all_that_was_its_own(queue: JobQueue, hands: Hands):
    dead, keeper = await hands(), await hands()
    await dead.take(1)
    await put(queue, "a")
    await make_due(queue, "workers", dead.name)
    assert (await keeper.house.sweep(rescue=True)).dead_workers == 1
    left = [key async for key in queue.client.scan_iter(f"{queue.keys.namespace}worker:{dead.name}:*")]
    assert left == []
    assert not await dead.is_idle()
    assert await queue.client.zscore(queue.keys.lane_workers("echo"), dead.name) is None


async def test_a_dead_worker_is_taken_out_of_its_lanes_however_long_nobody_kept_house(queue: JobQueue, hands: Hands):
    dead, keeper = await hands({"echo": 0.0, "letters": 0.0}), await hands()
    await dead.consumer.renew([])
    async for key in queue.client.scan_iter(f"{queue.keys.namespace}worker:{dead.name}:*"):
        if await queue.client.pttl(key) >= 0:
            await queue.client.delete(key)  # as if its time had passed
    await make_due(queue, "workers", dead.name)
    assert (await keeper.house.sweep(rescue=True)).dead_workers == 1
    for lane in ("echo", "letters"):
        assert await queue.client.zscore(queue.keys.lane_workers(lane), dead.name) is None
    assert not await queue.client.exists(queue.keys.worker(dead.name, "lanes"))


async def test_a_worker_that_was_taken_for_dead_has_to_register_again(queue: JobQueue, hands: Hands):
    slept, keeper = await hands(), await hands()
    await put(queue, "a")
    await make_due(queue, "workers", slept.name)
    await keeper.house.sweep(rescue=True)
    assert not (await slept.claim(1)).registered
    assert not (await slept.consumer.renew([])).registered
    assert await slept.register({"echo": 0.0}, reset=False) == -1
    assert await slept.register({"echo": 0.0}) == 1
    assert await slept.ids(1) == ["a"]


async def test_the_events_of_one_job_are_capped(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    for _ in range(120):
        await hand.finish(await hand.take_one(), "release")
    events = await queue.history("a")
    assert [events[0].name, events[-1].name] == ["submitted", "released"]
    assert len(events) == 1 + 200


async def test_what_a_listing_gives_is_what_is_kept(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    hand = await hands()
    await hand.finish(await hand.take_one())
    await queue.client.delete(queue.keys.job("a"), queue.keys.payload("a"), queue.keys.job_events("a"))
    assert [job.id for job in await queue.jobs()] == ["c", "b"]
    await make_due(queue, "completed", "a")
    await hand.house.sweep(rescue=True)
    assert await queue.counts() == {state: 2 if state is JobState.PENDING else 0 for state in JobState}
