"""Registering: one process per name, and each name gone when its process is."""

from typing import Any

import pytest

from emp_core.errors import WorkerNotFound
from emp_core.jobs.matching import Capabilities, ModelOffer, ServiceOffer
from emp_core.queue.queue import JobQueue
from emp_core.queue.workers import decode_worker, encode_capabilities

from .hands import Hands, make_due, put


async def test_a_name_that_is_alive_is_refused(queue: JobQueue, hands: Hands):
    first = await hands(name="w")
    second = hands.unregistered(name="w")
    assert await second.register({"echo": 0.0}) == 0
    await put(queue, "a")
    assert not (await second.claim(1)).registered
    assert await first.ids(1) == ["a"]


async def test_a_dead_ones_name_can_be_had(queue: JobQueue, hands: Hands):
    dead = await hands({"echo": 0.0, "old": 0.0}, name="w")
    await put(queue, "a")
    claimed = await dead.take_one()
    await queue.client.delete(queue.keys.worker("w", "heartbeat"))
    heir = hands.unregistered(name="w")
    assert await heir.register({"echo": 0.0}) == 1
    assert await queue.client.zscore(queue.keys.lane_workers("old"), "w") is None
    assert not (await dead.claim(1)).registered
    assert not (await dead.consumer.renew([])).registered
    assert await dead.finish(claimed) == (1, "completed"), "its lease still holds"


async def test_the_same_process_may_say_it_again(hands: Hands):
    hand = await hands()
    assert await hand.register({"echo": 5.0}) == 1
    assert await hand.register({"other": 5.0}, reset=False) == 1


async def test_one_that_retired_is_gone(queue: JobQueue, hands: Hands):
    hand = await hands()
    await hand.ids(1)
    await hand.consumer.retire()
    left = [key async for key in queue.client.scan_iter(f"{queue.keys.namespace}*worker*")]
    assert left == []
    assert await queue.workers() == []


async def test_retiring_does_not_touch_an_heir(queue: JobQueue, hands: Hands):
    dead = await hands(name="w")
    await queue.client.delete(queue.keys.worker("w", "heartbeat"))
    heir = hands.unregistered(name="w")
    assert await heir.register({"echo": 0.0}) == 1
    await dead.consumer.retire()
    await put(queue, "a")
    assert await heir.ids(1) == ["a"]


async def test_only_a_live_worker_is_told_to_drain(queue: JobQueue, hands: Hands):
    alive, dead = await hands(), await hands()
    await queue.client.delete(queue.keys.worker(dead.name, "heartbeat"))
    await queue.drain_worker(alive.name)
    assert await alive.inbox() == [f"drain {alive.consumer.session}"]
    for name in (dead.name, "", "nobody", "w\ud800", "x" * 100_000):
        with pytest.raises(WorkerNotFound, match="is alive") as refused:
            await queue.drain_worker(name)
        assert len(str(refused.value)) < 300
    assert await dead.inbox() == []


async def test_live_workers_are_listed_with_what_they_offer(queue: JobQueue, hands: Hands):
    alive, dead = await hands(), await hands()
    await queue.client.delete(queue.keys.worker(dead.name, "heartbeat"))
    [found] = await queue.workers()
    assert (found.id, list(found.capabilities.services)) == (alive.name, ["echo"])
    assert 0 < found.alive_for_s <= 3
    await make_due(queue, "workers", dead.name)
    await alive.house.sweep(rescue=True)
    assert len(await queue.workers()) == 1


@pytest.mark.parametrize(
    ("lists", "taken"),
    [
        ({"customers_allow": ("a",)}, ["a"]),
        ({"customers_deny": ("a",)}, ["b", "n"]),
        ({"customers_allow": ("a", "b"), "customers_deny": ("b",)}, ["a"]),
        ({"customers_allow": ("nobody",)}, []),
        ({}, ["a", "b", "n"]),
    ],
)
async def test_a_workers_own_lists_of_customers_always_hold(
    queue: JobQueue, hands: Hands, lists: dict[str, Any], taken: list[str]
):
    for customer in ("a", "b"):
        await put(queue, customer, customer_id=customer)
    await put(queue, "n")
    assert sorted(await (await hands(**lists)).ids(5)) == taken


async def test_a_customer_far_down_the_turns_is_found(queue: JobQueue, hands: Hands):
    """More others wait before it than are looked at in one go."""
    from emp_core.jobs.model import JobSpec

    await queue.submit_many(JobSpec("echo", customer_id=f"c{i:03}") for i in range(150))
    await put(queue, "mine", customer_id="last")
    hand = await hands(customers_allow=("last",))
    assert await hand.ids(5) == ["mine"]
    assert await hand.ids(5) == []


def test_models_take_no_more_room_than_what_is_unusual_about_them():
    usual = {f"loras/style-{number}.safetensors": ModelOffer() for number in range(1000)}
    service = ServiceOffer("ComfyUI", models={**usual, "hot": ModelOffer(loaded=True, size_bytes=7)})
    facts = encode_capabilities(Capabilities("w", "m", services={"comfyui": service}))
    assert sum(map(len, facts)) < 45 * len(usual)
    read = decode_worker("w", dict(zip(facts[::2], facts[1::2], strict=True)), 1.0)
    assert read.capabilities.services == {"comfyui": service}
