"""A job that nobody can run says so: to whoever submits it, and in its events."""

import pytest

from emp_core.errors import NobodyServes
from emp_core.jobs.model import JobSpec
from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import JobQueue

from .hands import Hands, make_due, put

GPU = {"hardware": {"gpu_memory_mb": 24_000}}


async def unserved(queue: JobQueue, job_id: str) -> list[list[str]]:
    """The reasons of each time that it was told."""
    return [event.data["reasons"] for event in await queue.history(job_id) if event.name == "unserved"]


async def test_without_any_worker_it_is_told_at_submit(queue: JobQueue):
    await put(queue, "a")
    assert await unserved(queue, "a") == [["no worker is alive"]]


async def test_it_is_told_why_for_every_worker(queue: JobQueue, hands: Hands):
    await hands(name="w1")
    await hands(name="w2")
    await put(queue, "a", requirements=GPU)
    assert await unserved(queue, "a") == [
        [
            "w1: gpu_memory_mb is not known, the job wants 24000",
            "w2: gpu_memory_mb is not known, the job wants 24000",
        ]
    ]


async def test_it_is_told_of_one_job_of_a_batch_for_each_requirement(queue: JobQueue):
    names = ["echo", "echo", "paint", "echo", "paint"]
    jobs = await queue.submit_many(JobSpec(name) for name in names)
    assert [len(await unserved(queue, job.id)) for job in jobs] == [1, 0, 1, 0, 0]


async def test_it_is_not_told_of_a_job_that_somebody_serves(queue: JobQueue, hands: Hands):
    await put(queue, "first")
    await hands()
    await put(queue, "a")
    await queue.submit(
        JobSpec("echo", id="new lane".replace(" ", "-"), priority=1, requirements={"exclude": {"slow": 1}})
    )
    assert await unserved(queue, "a") == await unserved(queue, "new-lane") == []


async def test_one_that_begins_later_is_told_of_as_well(queue: JobQueue):
    from datetime import UTC, datetime

    await put(queue, "a", start_at=datetime(2099, 1, 1, tzinfo=UTC))
    assert await unserved(queue, "a") == [["no worker is alive"]]


async def test_a_strict_submit_refuses_it_and_puts_nothing_into_the_queue(queue: JobQueue, hands: Hands):
    await hands(name="w1")
    with pytest.raises(NobodyServes, match="w1: gpu_memory_mb is not known") as caught:
        await queue.submit(JobSpec("echo", requirements=GPU), strict=True)
    assert caught.value.details == {"requirement": {"service": "echo", **GPU}}
    assert await queue.jobs() == []
    assert (await queue.submit(JobSpec("echo"), strict=True)).status == "pending"


async def test_a_strict_submit_of_many_refuses_all_when_one_cannot_be_run(queue: JobQueue, hands: Hands):
    await hands()
    with pytest.raises(NobodyServes):
        await queue.submit_many([JobSpec("echo"), JobSpec("paint")], strict=True)
    assert await queue.jobs() == []


async def test_the_keeper_tells_it_once_when_the_last_worker_that_could_is_gone(queue: JobQueue, hands: Hands):
    gone, keeping = await hands(name="gone"), await hands({"other": 0.0}, name="keeping")
    await put(queue, "a", "b")
    assert await unserved(queue, "a") == []
    assert await keeping.house.unserved_jobs() == {}
    await make_due(queue, "workers", gone.name)
    await keeping.house.sweep(rescue=True)
    assert list(await keeping.house.unserved_jobs()) == ["a"]
    await keeping.register({"other": 0.0})
    await queue.client.delete(queue.keys.worker("keeping", "capabilities"))
    keeper = Keeper(keeping.house, queue.settings.lease_s)
    await keeper._tell_unserved()
    assert await unserved(queue, "a") == [["no worker is alive"]]
    assert await keeping.house.unserved_jobs() == {}
    assert await unserved(queue, "b") == [], "the first of a lane speaks for it"


async def test_it_is_told_again_after_somebody_had_it_and_gave_it_back(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.finish(await hand.take_one(), "release")
    await hand.register({"echo": None}, reset=False)
    assert list(await hand.house.unserved_jobs()) == ["a"]


async def test_a_lane_that_nobody_here_can_read_does_not_keep_the_others_from_being_told(queue: JobQueue, hands: Hands):
    hand = await hands()
    await queue.submit(JobSpec("strange", id="strange"))
    await queue.submit(JobSpec("paint", id="a"))
    await queue.client.hdel(queue.keys.job("strange"), "unserved")
    await queue.client.hdel(queue.keys.job("a"), "unserved")
    await queue.client.hset(queue.keys.fixed("lanes"), "strange", '{"service":"strange","tempo":"presto"}')
    assert list(await hand.house.unserved_jobs()) == ["a"]
