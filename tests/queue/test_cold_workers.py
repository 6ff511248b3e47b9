"""A worker that would have to load first leaves a job to one that is ready, for a while that is bounded."""

from typing import Any

import pytest

from emp_core.queue.queue import JobQueue

from .hands import SECOND, Hand, Hands, make_due, put

PENALTY_MS = 20_000.0
WAIT_S = 6.0
"""0.3 times the penalty."""


async def aged(queue: JobQueue, job_id: str, seconds: float) -> None:
    """Let the job have become claimable earlier."""
    now, _ = await queue.client.time()
    await queue.client.hset(queue.keys.job(job_id), "pending_at", int((now - seconds) * SECOND))


async def cold_and_warm(hands: Hands, penalty_ms: float = PENALTY_MS) -> tuple[Hand, Hand]:
    return await hands({"echo": penalty_ms}), await hands({"echo": 0.0})


async def test_a_cold_worker_leaves_a_fresh_job_to_a_warm_one(queue: JobQueue, hands: Hands):
    cold, warm = await cold_and_warm(hands)
    await put(queue, "a")
    claim = await cold.claim(1)
    assert claim.jobs == ()
    assert claim.come_back_s == pytest.approx(WAIT_S, abs=0.5)
    assert await warm.ids(1) == ["a"]


async def test_a_cold_worker_takes_what_nobody_took_in_time(queue: JobQueue, hands: Hands):
    cold, _ = await cold_and_warm(hands)
    await put(queue, "a")
    await aged(queue, "a", WAIT_S + 1)
    assert await cold.ids(1) == ["a"]


@pytest.mark.parametrize(("penalty_ms", "wait_s"), [(1_000.0, 0.3), (500_000.0, 30.0)])
async def test_the_wait_is_a_share_of_the_penalty_and_bounded(
    queue: JobQueue, hands: Hands, penalty_ms: float, wait_s: float
):
    cold, _ = await cold_and_warm(hands, penalty_ms)
    await put(queue, "a")
    come_back_s = (await cold.claim(1)).come_back_s
    assert come_back_s == pytest.approx(wait_s, abs=0.25)


async def test_a_cold_worker_does_not_wait_for_one_that_is_colder_or_dead(queue: JobQueue, hands: Hands):
    cold, warm = await cold_and_warm(hands)
    await hands({"echo": PENALTY_MS + 1})
    await make_due(queue, "workers", warm.name)
    await put(queue, "a")
    assert await cold.ids(1) == ["a"]


async def test_a_cold_worker_alone_takes_jobs_at_once(queue: JobQueue, hands: Hands):
    cold = await hands({"echo": PENALTY_MS})
    await put(queue, "a")
    assert await cold.ids(1) == ["a"]


async def test_a_cold_worker_takes_one_cold_job_a_call(queue: JobQueue, hands: Hands):
    """After that it may be warm."""
    cold = await hands({"echo": PENALTY_MS})
    await put(queue, "a", "b", "c")
    assert await cold.ids(3) == ["a"]
    assert await cold.ids(3) == ["b"]


async def test_warm_lanes_go_before_cold_ones(queue: JobQueue, hands: Hands):
    [older] = await put(queue, "older", requirements={"models": ["m"]})
    await put(queue, "younger")
    hand = await hands({older.lane: PENALTY_MS, "echo": 0.0})
    assert await hand.ids(2) == ["younger", "older"]


async def test_after_four_refusals_the_call_ends(queue: JobQueue, hands: Hands):
    jobs = [(await put(queue, f"j{i}", requirements={"models": [f"m{i}"]}))[0] for i in range(6)]
    lanes = {job.lane: PENALTY_MS + i for i, job in enumerate(jobs)}
    cold = await hands(lanes)
    await hands(dict.fromkeys(lanes, 0.0))
    await aged(queue, "j5", 100)
    claim = await cold.claim(6)
    assert claim.jobs == ()
    assert claim.come_back_s == pytest.approx(WAIT_S, abs=0.5)


@pytest.mark.parametrize("lists", [{"customers_deny": ("acme",)}, {"customers_allow": ("other",)}])
async def test_a_cold_worker_does_not_wait_for_one_that_refuses_the_customer(
    queue: JobQueue, hands: Hands, lists: dict[str, Any]
):
    cold = await hands({"echo": PENALTY_MS})
    for _ in range(5):
        await hands({"echo": 0.0}, **lists)
    await put(queue, "a", customer_id="acme")
    assert await cold.ids(1) == ["a"]


@pytest.mark.parametrize("lists", [{"customers_deny": ("other",)}, {"customers_allow": ("other", "acme")}])
async def test_a_cold_worker_waits_for_one_that_takes_the_customer_behind_many_that_do_not(
    queue: JobQueue, hands: Hands, lists: dict[str, Any]
):
    cold = await hands({"echo": PENALTY_MS})
    for _ in range(5):
        await hands({"echo": 0.0}, customers_deny=("acme",))
    warm = await hands({"echo": 1.0}, **lists)
    await put(queue, "a", customer_id="acme")
    assert await cold.ids(1) == []
    assert await warm.ids(1) == ["a"]


@pytest.mark.parametrize("said", ["{", "5", "null"])
async def test_a_cold_worker_does_not_wait_for_one_that_cannot_be_understood(queue: JobQueue, hands: Hands, said: str):
    cold, warm = await cold_and_warm(hands)
    await queue.client.hset(queue.keys.worker(warm.name, "capabilities"), "deny", said)
    await put(queue, "a")
    assert await cold.ids(1) == ["a"]
