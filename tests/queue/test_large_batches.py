"""Many jobs at once, however large they are: no call takes so long that Redis seems to be away."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from attrs import evolve

from emp_core.jobs.model import JobSpec
from emp_core.jobs.outcomes import Completed, JobResult
from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Finish, Lease
from emp_core.queue.queue import JobQueue
from emp_core.queue.scripts import load_script
from emp_core.worker.finisher import Finisher
from emp_core.worker.leases import Leases

from .hands import Hands

MIB = 2**20


@pytest.fixture
async def sent(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every call that submits."""
    await queue.submit(JobSpec("echo"))  # Redis knows the script from now on
    sizes: list[int] = []
    calls, submits = queue.client.calls, load_script("submit").sha.encode()

    async def noted(commands: Sequence[bytes], *more: Any) -> list[Any]:
        if submits in commands[0][:100]:
            sizes.append(sum(len(command) for command in commands))
        replies: list[Any] = await calls(commands, *more)
        return replies

    monkeypatch.setattr(queue.client, "calls", noted)
    return sizes


async def test_large_payloads_are_sent_in_several_calls(queue: JobQueue, sent: list[int]):
    specs = [JobSpec("echo", {"n": n, "text": "x" * 3 * MIB}) for n in range(16)]
    jobs = await queue.submit_many(specs)
    assert sum(sent) > 48 * MIB
    assert max(sent) < 17 * MIB
    assert [job.payload["n"] for job in jobs] == list(range(16))
    assert (await queue.get(jobs[-1].id)).payload == specs[-1].payload


async def test_small_jobs_are_sent_500_at_once(queue: JobQueue, sent: list[int]):
    jobs = await queue.submit_many(JobSpec("echo", {"n": n}) for n in range(1100))
    assert len({job.id for job in jobs}) == 1100
    assert len(sent) == 3


@pytest.mark.parametrize("customers", [(None,), ("a", "b")], ids=["of nobody", "of customers"])
async def test_a_claim_gives_no_more_than_16_mib_of_payloads_and_what_is_left_comes_next(
    queue: JobQueue, hands: Hands, customers: Sequence[str | None]
):
    hand = await hands()
    text = "x" * 3 * MIB
    await queue.submit_many(
        JobSpec("echo", {"text": text}, id=f"j{n}", customer_id=customers[n % len(customers)]) for n in range(12)
    )
    given = [await hand.take(256) for _ in range(3)]
    assert [len(jobs) for jobs in given] == [6, 6, 0]
    assert {claimed.job.id for jobs in given for claimed in jobs} == {f"j{n}" for n in range(12)}
    assert all(claimed.job.payload["text"] == text for jobs in given for claimed in jobs)


async def test_a_payload_as_large_as_a_whole_claim_is_given_alone(queue: JobQueue, hands: Hands):
    async with JobQueue.connect(settings=evolve(queue.settings, max_payload_bytes=20 * MIB)) as roomy:
        await roomy.submit_many(JobSpec("echo", {"text": "x" * 17 * MIB}, id=name) for name in ("a", "b"))
    hand = await hands()
    assert [await hand.ids(8) for _ in range(2)] == [["a"], ["b"]]


async def test_the_same_claim_gives_the_same_jobs_however_large_they_are(queue: JobQueue, hands: Hands):
    hand = await hands()
    await queue.submit_many(JobSpec("echo", {"text": "x" * 3 * MIB}, id=f"j{n}") for n in range(8))
    first = await hand.ids(8, token="t")
    assert len(first) == 6
    assert await hand.ids(8, token="t") == first


async def test_thousands_of_leases_are_renewed_in_one_call(queue: JobQueue, hands: Hands):
    hand = await hands()
    await queue.submit_many(JobSpec("echo", id=f"j{n}") for n in range(4500))
    leases: list[Lease] = []
    while claimed := await hand.take(500):
        leases += [Lease(one.job.id, one.token) for one in claimed]
    assert len(leases) == 4500
    index = queue.keys.index("active")
    await queue.client.zadd(index, dict.fromkeys((lease.job_id for lease in leases), 1), xx=True)
    renewal = await hand.consumer.renew(leases)
    assert (renewal.registered, renewal.lost) == (True, frozenset())
    assert await queue.client.zcount(index, "-inf", 1) == 0
    assert await queue.client.zcard(index) == 4500


async def test_large_outcomes_are_recorded_in_several_calls(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    hand = await hands()
    leases = Leases(hand.consumer, 15.0, on_renewal=lambda _: None)
    finisher = Finisher(hand.consumer, leases, lambda *_: None)
    sizes: list[int] = []
    finish = hand.consumer.finish

    async def noted(outcomes: Sequence[Finish]) -> list[tuple[int, str]]:
        sizes.append(sum(len(one.result) for one in outcomes))
        return await finish(outcomes)

    monkeypatch.setattr(hand.consumer, "finish", noted)
    await queue.submit_many(JobSpec("echo") for _ in range(12))
    result = f'{{"success":true,"data":{{"text":"{"x" * 3 * MIB}"}},"artifacts":[]}}'
    for claimed in await hand.take(12):
        outcome = Finish(claimed.job.id, claimed.token, "completed", result=result)
        finisher.hand_over(leases.hold(claimed), Completed(JobResult()), outcome)
    async with anyio.create_task_group() as group:
        group.start_soon(finisher.run)
        await finisher.flushed()
        group.cancel_scope.cancel()
    assert max(sizes) < 17 * MIB
    assert sum(sizes) == 12 * len(result)
    assert (await queue.counts())[JobState.COMPLETED] == 12
