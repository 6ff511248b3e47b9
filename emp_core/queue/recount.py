"""Counting anew how many jobs each customer runs: a job that ended with all that was known of it gave no slot back."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from emp_core.queue.keys import Keys

__all__ = ["recount"]

_Run = Callable[[str, Mapping[str, Any], Sequence[Any]], Awaitable[Any]]

_AT_ONCE = 200
"""Jobs whose customers are read in one go."""


async def recount(client: Any, keys: Keys, run: _Run) -> dict[str, int]:
    """Correct how many jobs each customer runs, and give those who have room their turns back.

    What is counted and which jobs run is read at one moment. Whose they are is read in pieces after it: that never changes, and
    every script that changes the count changes what runs alike, so what the two differ by stays the same meanwhile.

    Args:
        client: a redis-py client; a call that fails because Redis is away raises what it raises.
        run: runs a script by its name.

    Returns:
        How many jobs were counted that do not run, by customer; less than none where some were not counted.
    """
    count, active = keys.fixed("customers_active"), keys.fixed("active")
    if not await client.exists(count, active):
        return {}
    async with client.pipeline(transaction=True) as pipe:
        pipe.hgetall(count)
        pipe.zrange(active, 0, -1)
        counted, job_ids = await pipe.execute()
    surplus = Counter({customer: int(count) for customer, count in counted.items()})
    for start in range(0, len(job_ids), _AT_ONCE):
        some = job_ids[start : start + _AT_ONCE]
        async with client.pipeline(transaction=False) as pipe:
            for job_id in some:
                pipe.hmget(keys.job(job_id), "status", "customer_id")
            told = await pipe.execute()
        surplus.subtract(customer for _, customer in told if customer)
        gone = [job_id for job_id, (status, _) in zip(some, told, strict=True) if status is None]
        if gone and None in await client.zmscore(active, gone):
            return {}  # one ended meanwhile, and nobody knows whose it was: another time
    wrong = {customer: jobs for customer, jobs in surplus.items() if jobs}
    if wrong:
        await run("recount", {}, [told for one in wrong.items() for told in one])
    return wrong
