"""A job that nobody can run says so: to whoever submits it, and in its events."""

import pytest

from emp_core.errors import NobodyServes
from emp_core.jobs.model import JobSpec
from emp_core.queue import submitting
from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import JobQueue

from .hands import Hands, make_due, put

GPU = {"hardware": {"gpu_memory_mb": 24_000}}


async def unserved(queue: JobQueue, job_id: str) -> list[list[str]]:
    """The reasons of each time that it was told."""
    return [event.data["reasons"] for event in await queue.history(job_id) if event.name == "unserved"]


async def told_of(queue: JobQueue, ids: list[str]) -> int:
    """How many of them are marked as told."""
    async with queue.client.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.hexists(queue.keys.job(job_id), "unserved")
        return sum(await pipe.execute())


async def test_without_any_worker_it_is_told_of(queue: JobQueue):
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


async def test_without_any_worker_it_is_told_of_one_job_for_each_requirement_and_second(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
):
    """To tell all would make such a submit take longer than any other."""
    monkeypatch.setattr(submitting, "_ASK_EVERY_S", 3600.0)  # however long this test takes
    names = ["echo", "echo", "paint", "echo", "paint"]
    jobs = [*await queue.submit_many(JobSpec(name) for name in names), await queue.submit(JobSpec("paint"))]
    assert [len(await unserved(queue, job.id)) for job in jobs] == [1, 0, 1, 0, 0, 0]


async def test_where_workers_live_it_is_told_of_every_job(queue: JobQueue, hands: Hands):
    await hands()
    names = ["paint", "paint", "draw", "paint", "draw"]
    jobs = [*await queue.submit_many(JobSpec(name) for name in names), await queue.submit(JobSpec("paint"))]
    assert [len(await unserved(queue, job.id)) for job in jobs] == [1] * 6


async def test_of_many_jobs_a_hundred_are_told_at_submit_and_the_keeper_tells_the_others(queue: JobQueue, hands: Hands):
    hand = await hands()
    jobs = await queue.submit_many(JobSpec("paint") for _ in range(700))
    told = [len(await unserved(queue, job.id)) for job in jobs]
    assert set(told) == {0, 1}
    assert sum(told) >= 100
    assert sum([await hand.house.tell_unserved() for _ in range(3)]) == 700 - sum(told)
    assert {len(await unserved(queue, job.id)) for job in jobs} == {1}
    assert await hand.house.tell_unserved() == 0


async def test_the_keeper_tells_every_job_in_the_end_however_many_lanes_customers_and_jobs_wait(
    queue: JobQueue, hands: Hands
):
    lanes = [*(f"s{n}" for n in range(210)), *["s1"] * 100]
    jobs = await queue.submit_many(JobSpec(name) for name in lanes)
    jobs += await queue.submit_many(JobSpec("one", customer_id=f"c{n}") for n in range(1010))
    hand = await hands()
    told_before = await told_of(queue, [job.id for job in jobs])
    looks: list[int] = []
    while sum(looks) < len(jobs) - told_before and len(looks) < 10:
        looks.append(await hand.house.tell_unserved())
    assert max(looks) <= 1500
    assert await told_of(queue, [job.id for job in jobs]) == len(jobs)


async def test_a_new_lane_is_told_at_once_however_many_jobs_wait_in_another(queue: JobQueue, hands: Hands):
    await queue.submit_many(JobSpec("paint", priority=100) for _ in range(1200))
    [job] = await queue.submit_many([JobSpec("draw")])
    await queue.client.hdel(queue.keys.job(job.id), "unserved")
    hand = await hands()
    await hand.house.tell_unserved()
    assert len(await unserved(queue, job.id)) == 2


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
    assert await keeping.house.tell_unserved() == 0
    await make_due(queue, "workers", gone.name)
    await keeping.house.sweep(rescue=True)
    await queue.client.delete(queue.keys.worker("keeping", "capabilities"))
    keeper = Keeper(keeping.house, queue.settings.lease_s)
    assert await keeper._tell_unserved()
    assert await unserved(queue, "a") == await unserved(queue, "b") == [["no worker is alive"]]
    assert await keeping.house.tell_unserved() == 0
    assert len(await unserved(queue, "a")) == 1


async def test_it_is_told_again_after_somebody_had_it_and_gave_it_back(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.finish(await hand.take_one(), "release")
    await queue.client.delete(queue.keys.worker(hand.name, "capabilities"))
    await hand.register({"echo": None}, reset=False)
    await queue.client.hset(queue.keys.worker(hand.name, "capabilities"), "services", "{}")
    assert await hand.house.tell_unserved() == 1
    assert len(await unserved(queue, "a")) == 2


async def test_a_lane_that_nobody_here_can_read_does_not_keep_the_others_from_being_told(queue: JobQueue, hands: Hands):
    await queue.submit(JobSpec("strange", id="strange"))
    await queue.submit(JobSpec("paint", id="a"))
    hand = await hands()
    await queue.client.hdel(queue.keys.job("strange"), "unserved")
    await queue.client.hdel(queue.keys.job("a"), "unserved")
    await queue.client.hset(queue.keys.fixed("lanes"), "strange", '{"service":"strange","tempo":"presto"}')
    assert await hand.house.tell_unserved() == 1
    assert len(await unserved(queue, "a")) == 2


# -- what every worker refuses by customer ---------------------------------------------------------------------------


async def test_a_strict_submit_refuses_a_job_whose_customer_every_worker_refuses(queue: JobQueue, hands: Hands):
    await hands(name="w1", customers_deny=("evil",))
    await put(queue, "known-lane", customer_id="acme")
    with pytest.raises(NobodyServes, match="w1: refuses customer evil"):
        await queue.submit(JobSpec("echo", customer_id="evil"), strict=True)
    with pytest.raises(NobodyServes, match="w1: refuses customer evil"):
        await queue.submit_many([JobSpec("echo"), JobSpec("echo", customer_id="evil")], strict=True)
    assert len(await queue.jobs()) == 1
    await hands(name="w2", customers_allow=("evil",))
    assert (await queue.submit(JobSpec("echo", customer_id="evil"), strict=True)).customer_id == "evil"


async def test_it_is_told_at_submit_where_the_worker_that_is_idle_refuses_the_customer(queue: JobQueue, hands: Hands):
    hand = await hands(name="w1", customers_deny=("evil",))
    await hand.wait_for_jobs(2)
    await put(queue, "first", customer_id="acme")
    await put(queue, "x", "y", customer_id="evil")
    assert await unserved(queue, "x") == await unserved(queue, "y") == [["w1: refuses customer evil"]]
    await hands(name="w2")
    await put(queue, "z", customer_id="evil")
    assert await hand.house.tell_unserved() == 0


async def test_the_keeper_tells_jobs_whose_customer_every_worker_refuses(queue: JobQueue, hands: Hands):
    hand = await hands(name="w1", customers_deny=("evil",))
    await hands(name="w2", customers_allow=("acme",))
    await put(queue, "a", "b", customer_id="acme")
    await put(queue, "n")
    await put(queue, "x", "y", customer_id="evil")
    assert await hand.house.tell_unserved() == 2
    reasons = ["w1: refuses customer evil", "w2: takes only other customers than evil"]
    assert await unserved(queue, "x") == await unserved(queue, "y") == [reasons]
    assert (await queue.explain("x")).summary == f"no live worker can run it: {'; '.join(reasons)}"
    assert [await unserved(queue, one) for one in "abn"] == [[], [], []]


async def test_a_worker_that_cannot_be_understood_does_not_keep_the_keeper_from_telling(queue: JobQueue, hands: Hands):
    hand = await hands(name="w1", customers_deny=("evil",))
    await hands(name="odd")
    await put(queue, "x", customer_id="evil")
    await queue.client.hset(queue.keys.worker("odd", "capabilities"), "deny", "{")
    assert await hand.house.tell_unserved() == 1
    assert await unserved(queue, "x") == [["w1: refuses customer evil"]]
