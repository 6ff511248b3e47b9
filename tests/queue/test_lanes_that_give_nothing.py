"""What a claim costs that finds many lanes from which it may take nothing: Redis does nothing else meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands

FEW = 250
TIMES_AS_MANY = 4
# Looking at every lane again for each other one would take sixteen times as long.
AT_MOST = 8
TRIES = 7


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


async def lanes_of_one_customer(queue: JobQueue, lanes: range) -> list[str]:
    """A job of one customer in each of so many lanes more; gives all lanes that have jobs."""
    await queue.submit_many(JobSpec("echo", requirements={"models": [f"m{i}"]}, customer_id="c1") for i in lanes)
    heads: list[str] = await queue.client.zrange(queue.keys.fixed("heads"), 0, -1)
    return heads


def script_us(server: Redis) -> int:
    """Redis's time in µs for all scripts so far."""
    took: int = server.info("commandstats")["cmdstat_evalsha"]["usec"]
    return took


async def least_us(server: Redis, hand: Hand, jobs: int) -> int:
    """Redis's time in µs for a claim of this worker that gives so many jobs, the least of some: they are put back."""
    took = []
    for _ in range(TRIES):
        before = script_us(server)
        claimed = await hand.take(2)
        took.append(script_us(server) - before)
        assert len(claimed) == jobs
        for one in claimed:
            await hand.finish(one, "release")
    return min(took)


@pytest.mark.parametrize(
    ("settings", "jobs"),
    [({"customers_deny": ("c1",)}, 0), ({"customer_cap": 1}, 1)],
    ids=["a customer that is not admitted", "a customer at its cap"],
)
async def test_the_time_of_a_claim_grows_no_faster_than_the_lanes_that_give_it_nothing(
    queue: JobQueue, hands: Hands, server: Redis, settings: dict[str, Any], jobs: int
):
    took = []
    for lanes in (range(FEW), range(FEW, FEW * TIMES_AS_MANY)):
        penalties = dict.fromkeys(await lanes_of_one_customer(queue, lanes), 0.0)
        took.append(await least_us(server, await hands(penalties, **settings), jobs))
        assert len(penalties) == lanes.stop
    assert took[1] < AT_MOST * took[0]
