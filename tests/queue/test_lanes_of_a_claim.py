"""Which lane a claim takes from: the one whose turn + penalty is smallest, however many lanes there are and are served."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue

from .hands import Hands

Penalty = Callable[[int], float]

SERVED: dict[str, slice] = {
    "all": slice(None),
    "the first": slice(10),
    "the last few": slice(-5, None),
    "the last": slice(-40, None),
    "one": slice(-1, None),
    "every third": slice(None, None, 3),
}
PENALTIES: dict[str, Penalty] = {
    "ready for all": lambda _: 0.0,
    "ready for none": lambda _: 20_000.0,
    "ready for few": lambda i: 0.0 if i % 29 == 28 else 20_000.0,
    "ready sooner or later": lambda i: (i * 7919 % 13) * 1000.0,
}


async def wait_in_lanes(queue: JobQueue, count: int, customers: Sequence[str | None] = (None,)) -> None:
    """A job or two of each customer in so many lanes, of priorities that mix the order."""
    rng = random.Random(count)
    await queue.submit_many(
        JobSpec("echo", requirements={"models": [f"m{i}"]}, customer_id=customer, priority=rng.randint(0, 2))
        for customer in customers
        for i in (*range(count), *range(0, count, 7))
    )


async def lanes_by_turn(queue: JobQueue) -> list[str]:
    """The lanes that have jobs, the first turn first."""
    lanes: list[str] = await queue.client.zrange(queue.keys.fixed("heads"), 0, -1)
    return lanes


async def smallest_ranks(
    queue: JobQueue, penalties: dict[str, float], admits: Callable[[str], bool] = lambda _: True
) -> set[tuple[str, str]]:
    """The lanes and customers that may be next, found by looking at everything."""
    ranks = {
        (lane, customer): turn + penalties[lane] * 1000
        for lane, turns in (await turns_of(queue, list(penalties))).items()
        for customer, turn in turns
        if admits(customer)
    }
    best = min(ranks.values(), default=0.0)
    return {place for place, rank in ranks.items() if rank == best}


async def turns_of(queue: JobQueue, lanes: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    """The customers that wait in each lane, with their turns, the first one first."""
    async with queue.client.pipeline(transaction=False) as pipe:
        for lane in lanes:
            pipe.zrange(queue.keys.turns(lane), 0, -1, withscores=True)
        return dict(zip(lanes, await pipe.execute(), strict=True))


@pytest.mark.parametrize("count", [3, 100, 150])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("served", SERVED.values(), ids=SERVED)
async def test_a_claim_takes_from_the_lane_of_the_smallest_turn_and_penalty(
    queue: JobQueue, hands: Hands, count: int, penalty: Penalty, served: slice
):
    await wait_in_lanes(queue, count)
    lanes = (await lanes_by_turn(queue))[served]
    penalties = {lane: penalty(i) for i, lane in enumerate(lanes)}
    hand = await hands(penalties)
    for _ in range(6):
        best = await smallest_ranks(queue, penalties)
        if not best:
            assert await hand.take(1) == []
            break
        claimed = await hand.take_one()
        assert (claimed.job.lane, "") in best


@pytest.mark.parametrize(
    ("lists", "admits"),
    [
        ({"customers_allow": ("c07",)}, lambda c: c == "c07"),
        ({"customers_allow": tuple(f"c{i:02}" for i in range(0, 60, 2))}, lambda c: int(c[1:]) % 2 == 0),
        ({"customers_deny": ("c00", "c01")}, lambda c: c not in ("c00", "c01")),
        ({"customers_deny": tuple(f"c{i:02}" for i in range(11))}, lambda c: c == "c11"),
        ({"customers_allow": ("c03", "c04"), "customers_deny": ("c03",)}, lambda c: c == "c04"),
    ],
    ids=["one", "many", "all but two", "all but one", "both"],
)
async def test_a_claim_takes_the_turn_of_the_first_customer_that_the_worker_admits(
    queue: JobQueue, hands: Hands, lists: dict[str, Any], admits: Callable[[str], bool]
):
    await wait_in_lanes(queue, 5, [f"c{i:02}" for i in range(12)])
    penalties = dict.fromkeys(await lanes_by_turn(queue), 0.0)
    hand = await hands(penalties, **lists)
    for _ in range(6):
        best = await smallest_ranks(queue, penalties, admits)
        claimed = await hand.take_one()
        assert (claimed.job.lane, claimed.job.customer_id) in best


@pytest.mark.parametrize("slots", [1, 4, 50])
async def test_the_index_of_lanes_has_each_lanes_first_turn_after_every_claim(
    queue: JobQueue, hands: Hands, slots: int
):
    await wait_in_lanes(queue, 20, ["a", "b", None])
    lanes = await lanes_by_turn(queue)
    hand = await hands(dict.fromkeys(lanes, 0.0))
    picky = await hands(dict.fromkeys(lanes, 0.0), customers_deny=("a",))
    for claiming in itertools.cycle((hand, picky)):
        if not await claiming.take(slots):
            break
        heads = dict(await queue.client.zrange(queue.keys.fixed("heads"), 0, -1, withscores=True))
        assert heads == {lane: turns[0][1] for lane, turns in (await turns_of(queue, lanes)).items() if turns}
