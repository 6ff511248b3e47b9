"""Workers that wait for jobs and are handed them, step by step."""

from typing import Any

from emp_core.jobs.states import JobState
from emp_core.queue.consumer import HandedJob
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, put


async def waiting(hands: Hands, lanes: dict[str, float | None] | None = None, slots: int = 1, **how: Any) -> Hand:
    """A worker that has nothing to do and takes what is handed to it."""
    hand = await hands(lanes, **how)
    claim = await hand.wait_for_jobs(slots)
    assert claim.registered
    assert claim.jobs == ()
    return hand


async def handed_to(hand: Hand) -> HandedJob:
    [handed] = await hand.handed()
    return handed


async def let_it_lapse(queue: JobQueue) -> None:
    """Let the time be over in which jobs that were handed over must be taken."""
    handed = queue.keys.fixed("handed")
    for entry in await queue.client.zrange(handed, 0, -1):
        await queue.client.zadd(handed, {entry: 1}, xx=True)


async def state(queue: JobQueue, job_id: str) -> JobState:
    return (await queue.get(job_id)).status


async def put_and_take(queue: JobQueue, hand: Hand, *ids: str, **spec: Any) -> list[HandedJob]:
    """Submit jobs one after the other; the worker says at once that it has them. Gives those that were handed to it."""
    taken: list[HandedJob] = []
    for one in ids:
        await put(queue, one, **spec)
        for told in await hand.handed():
            assert await hand.acknowledge(told)
            taken.append(told)
    return taken
