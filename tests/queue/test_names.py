"""Names come from outside: whatever is in them, keys do not collide, JSON stays JSON, and numbers keep their digits."""

import json

import pytest

from emp_core.errors import ConfigError, JobNotFound
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Lease
from emp_core.queue.queue import JobQueue

from .hands import Hands, end_lease, put

CUSTOMERS = [
    "a:b",
    "workers",
    "line",
    "line:x",
    "",
    "*",
    "[a]",
    "ünï — 客户",
    'quo"te',
    "back\\slash",
    "{tag}",
    "%s",
    "a b",
]


@pytest.mark.parametrize("customer", [name for name in CUSTOMERS if name])
async def test_a_customer_may_have_any_name(queue: JobQueue, hands: Hands, customer: str):
    """Through every script that has the name in a key or in JSON."""
    await put(queue, "a", "b", "c", customer_id=customer)
    hand = await hands(customer_cap=1, customers_allow=(customer,))
    first = await hand.take_one()
    assert first.job.customer_id == customer
    assert await hand.ids(2) == []
    await hand.consumer.renew([Lease("a", first.token, 50.0, customer, customer)])
    await queue.cancel("b", reason=customer)
    await end_lease(queue, "a")
    await hand.house.sweep(rescue=True)
    assert await hand.ids(2) == ["a"]
    assert (await queue.get("a")).message is None
    [cancelled] = [event for event in await queue.history("b") if event.name == "cancelled"]
    assert cancelled.data["reason"] == customer


async def test_customers_do_not_get_into_each_others_way(queue: JobQueue, hands: Hands):
    names = [name or None for name in CUSTOMERS]
    for i, customer in enumerate(names):
        await put(queue, f"j{i}", customer_id=customer)
    claimed = await (await hands()).take(len(names))
    assert {one.job.id: one.job.customer_id for one in claimed} == {f"j{i}": name for i, name in enumerate(names)}


async def test_services_and_customers_do_not_get_into_each_others_way(queue: JobQueue, hands: Hands):
    services = ["workers", "line", "heads", "empty", "version", "echo-1", "echo.1", "jobs"]
    for service in services:
        for customer in (None, "workers", "line:workers"):
            await queue.submit(JobSpec(service, customer_id=customer))
    hand = await hands(dict.fromkeys(services, 0.0))
    assert len(await hand.take(100, services=services)) == 3 * len(services)


@pytest.mark.parametrize("name", ["a:b", "ü@m", "w:lanes", "w*"])
async def test_a_worker_may_have_any_name(queue: JobQueue, hands: Hands, name: str):
    await put(queue, "a")
    plain = await hands(name="w")
    hand = await hands(name=name)
    claimed = await hand.take_one()
    assert (await queue.get("a")).worker_id == name
    await hand.finish(claimed, "release")
    await hand.consumer.retire()
    assert await plain.ids(1) == ["a"]


@pytest.mark.parametrize("job_id", ["a:b", "", ".a", "pending", "active", "a/b", "a b", "ü", "a" * 65, 'a"', "a\n"])
async def test_an_id_that_would_be_another_key_is_refused(queue: JobQueue, job_id: str):
    with pytest.raises(ConfigError) as refused:
        await put(queue, job_id)
    assert refused.value.problems[0].startswith("id:")


async def test_two_installations_share_a_redis(queue: JobQueue, hands: Hands, namespace: str):
    from attrs import evolve

    other_settings = evolve(queue.settings, namespace=f"{namespace}other:")
    async with JobQueue.connect(settings=other_settings) as other:
        await put(other, "theirs")
        await put(queue, "ours")
        assert await (await hands()).ids(5) == ["ours"]
        assert await (await Hands(other)()).ids(5) == ["theirs"]
        assert (await other.counts())[JobState.ACTIVE] == 1
        keys = [key async for key in other.client.scan_iter(f"{namespace}other:*")]
        await other.client.delete(*keys)


async def test_times_have_microseconds_from_submit_to_result(queue: JobQueue, hands: Hands):
    await put(queue, "a", priority=99)
    hand = await hands()
    await hand.finish(await hand.take_one())
    for name in ("created_at", "started_at", "finished_at", "arrival"):
        text = await queue.client.hget(queue.keys.job("a"), name)
        assert text.isdecimal(), f"{name} is {text}"
        assert len(text) == 16
    raw = await queue.client.lrange(queue.keys.job_events("a"), 0, -1)
    assert all(len(str(json.loads(one)["at"])) == 16 for one in raw)
    job = await queue.get("a")
    assert job.created_at is not None
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at < job.started_at < job.finished_at


async def test_attempts_stay_whole_numbers(queue: JobQueue, hands: Hands):
    await put(queue, "a", max_attempts=100)
    hand = await hands()
    for _ in range(12):
        await hand.finish(await hand.take_one(), "retry")
    assert await queue.client.hget(queue.keys.job("a"), "attempt") == "12"
    [*_, last] = [event for event in await queue.history("a") if event.name == "retried"]
    assert last.data["attempt"] == 12


@pytest.mark.parametrize(
    "payload", [None, 0, "", [], {}, "ü\u2028\x00", {"a" * 300: [[[]]]}, 1e-9, 12345678901234567890]
)
async def test_a_payload_comes_back_as_it_was(queue: JobQueue, hands: Hands, payload: object):
    async with JobQueue.connect(settings=queue.settings, prepare=False) as unprepared:
        await put(unprepared, "a", payload=payload)
    assert (await (await hands()).take_one()).job.payload == payload
    assert (await queue.get("a")).payload == payload


@pytest.mark.parametrize("labels", [{}, {"a": ""}, {'q"': "ü\n"}])
async def test_labels_come_back_as_they_were(queue: JobQueue, hands: Hands, labels: dict[str, str]):
    await put(queue, "a", labels=labels)
    assert (await (await hands()).take_one()).job.labels == labels


@pytest.mark.parametrize("name", ["pending", "active", "j:payload", "j:events", "../j", "*", "", " ", "x" * 65])
async def test_what_cannot_be_an_id_is_no_job_whatever_key_it_names(queue: JobQueue, hands: Hands, name: str):
    await put(queue, "j")
    claimed = await (await hands()).take_one()
    for call in (queue.get, queue.wait, queue.history, queue.cancel, queue.retry, queue.explain, queue.attempts):
        with pytest.raises(JobNotFound, match="there is no job"):
            await call(name)
    with pytest.raises(JobNotFound, match="there is no job"):
        await queue.set_priority(name, 1)
    with pytest.raises(JobNotFound, match="there is no job"):
        await anext(queue.events(name))
    assert (await queue.get("j")).status is JobState.ACTIVE
    assert claimed.job.id == "j"
