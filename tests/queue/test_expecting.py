"""A program that waits for its jobs listens to each of them from before it exists, and asks nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve
from redis import exceptions

from emp_core.errors import DuplicateJob, QueueFull, QueueUnavailable
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.listening import LOST, Heard
from emp_core.queue.queue import JobQueue
from emp_core.queue.sending import packed
from emp_core.testing.link import link_to
from emp_core.testing.workers import fast_settings
from tests.chaos.servers import server

from .hands import Hand, Hands, put

OTHER = "other"


async def waited_for(queue: JobQueue, hand: Hand, job_id: str = OTHER) -> Job:
    """A job that was waited for to its end."""
    with queue._listener.subscribed(queue.keys.done_channel(job_id)) as heard:
        while not await heard.subscribed():  # the listener is not connected yet
            await heard.next(5)
    await put(queue, job_id)
    await hand.finish(await hand.take_one())
    return await queue.wait(job_id, timeout=5)


async def listened_to(queue: JobQueue, *ids: str) -> list[str]:
    """Those of the jobs whose outcome somebody listens to who submitted them."""
    waiters = [await queue.client.hget(queue.keys.job(job_id), "waiter") for job_id in ids]
    counts = await queue.client.pubsub_numsub(*(queue.keys.done_channel(waiter or "none") for waiter in waiters))
    return [job_id for job_id, (_, listeners) in zip(ids, counts, strict=True) if listeners]


@asynccontextmanager
async def asking_nothing(queue: JobQueue, *ids: str) -> AsyncIterator[None]:
    """These jobs may be waited for, but nobody may read them."""
    async with queue.client.monitor() as monitor:
        yield
        await queue.client.echo("the end")
        while not (command := (await monitor.next_command()))["command"].startswith("ECHO the end"):
            name = command["command"].split()[0]
            if command["client_type"] != "lua" and any(job_id in command["command"] for job_id in ids):
                assert name in ("EVALSHA", "HGET")  # the last is the test's own


async def test_who_waited_for_a_job_waits_for_the_next_without_a_question(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    results: list[Job] = []
    async with asking_nothing(queue, "j1", "j2"):
        for job_id in ("j1", "j2"):
            await put(queue, job_id, payload={"text": "ü/\x00", "list": [1, None]}, labels={"a": "b"}, timeout_s=5)
            assert await listened_to(queue, job_id) == [job_id]
            waiter = asyncio.create_task(queue.wait(job_id, timeout=5))
            await checkpoint()
            await hand.finish(await hand.take_one(), result='{"success":true,"data":{"n":1},"artifacts":[]}')
            results = [*results, await waiter]
    assert results == [await queue.get("j1"), await queue.get("j2")]
    assert (results[1].status, results[1].payload) == ("completed", {"text": "ü/\x00", "list": [1, None]})


async def test_an_outcome_that_came_before_somebody_waited_is_known(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    async with asking_nothing(queue, "j1"):
        await put(queue, "j1")
        expected = queue._open.expectations._expected["j1"]
        await hand.finish(await hand.take_one())
        await told(expected)
        done = await queue.wait("j1", timeout=5)
    assert done == await queue.get("j1")


async def test_each_of_many_jobs_is_told_its_own_outcome_on_one_channel(queue: JobQueue, hands: Hands, namespace: str):
    hand = await hands()
    await waited_for(queue, hand)
    for _ in range(5):
        queue._open.expectations.waited_for("none")
    ids = [f"j{n}" for n in range(6)]
    async with asking_nothing(queue, *ids):
        await put(queue, *ids)
        waiters = [asyncio.create_task(queue.wait(job_id, timeout=5)) for job_id in ids]
        await checkpoint()
        assert len(await queue.client.pubsub_channels(f"{namespace}done:@*")) == 1
        for decision in ("completed", "failed", "completed"):
            await hand.finish(await hand.take_one(), decision)
        for job_id in ids[3:]:
            await queue._open.changer.cancel(job_id, "")
        ended = [await waiter for waiter in waiters]
    assert [job.status for job in ended] == ["completed", "failed", "completed", *["cancelled"] * 3]
    assert ended == [await queue.get(job_id) for job_id in ids]


async def test_an_outcome_that_is_too_large_to_be_told_is_read(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    await put(queue, "j1")
    waiter = asyncio.create_task(queue.wait("j1", timeout=4))  # sooner than anybody looks without being told
    await checkpoint()
    await hand.finish(
        await hand.take_one(), result='{"success":true,"data":{"text":"%s"},"artifacts":[]}' % ("x" * 20_000)
    )
    assert await waiter == await queue.get("j1")


async def test_others_who_wait_are_told_as_well(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    await put(queue, "j1")
    async with JobQueue.connect(settings=queue.settings) as other:
        await connected(other)
        waiters = [asyncio.create_task(each.wait("j1", timeout=4)) for each in (queue, other)]
        while not (await queue.client.pubsub_numsub(queue.keys.done_channel("j1")))[0][1]:  # noqa: ASYNC110 - Redis tells nobody
            await anyio.sleep(0.001)
        await hand.finish(await hand.take_one())
        assert [await waiter for waiter in waiters] == [await queue.get("j1")] * 2


async def told(heard: Heard) -> None:
    """Wait until something was heard, and leave it there."""
    with anyio.fail_after(5):
        while not heard._texts:  # noqa: ASYNC110 - who waits for it takes it away
            await anyio.sleep(0.001)


@pytest.mark.parametrize("by", ["this program", "another one"])
async def test_a_job_that_was_retried_is_waited_for_anew(queue: JobQueue, hands: Hands, by: str):
    hand = await hands()
    await waited_for(queue, hand)
    await put(queue, "j1")
    expected = queue._open.expectations._expected["j1"]
    await hand.finish(await hand.take_one(), "failed")
    await told(expected)
    if by == "this program":
        await queue.retry("j1")
    else:
        async with JobQueue.connect(settings=queue.settings) as other:
            await other.retry("j1")
        expected.heard_at -= 1  # as if it had taken a while
    with pytest.raises(TimeoutError):
        await queue.wait("j1", timeout=0.05)
    await hand.finish(await hand.take_one())
    assert (await queue.wait("j1", timeout=5)).status == "completed"


async def test_who_waits_for_nothing_listens_to_nothing(queue: JobQueue, hands: Hands):
    hand = await hands()
    await put(queue, "j1", "j2")
    assert await listened_to(queue, "j1", "j2") == []
    await hand.take(2)
    await waited_for(queue, hand)
    await put(queue, "j3", "j4", "j5")
    assert await listened_to(queue, "j3", "j4", "j5") == ["j3"]  # as many as were waited for


async def test_what_is_expected_and_never_waited_for_has_a_bound(queue: JobQueue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("emp_core.queue.expecting._MOST", 3)
    await connected(queue)
    expectations = queue._open.expectations
    for n in range(10):
        expectations.waited_for("none")
        await put(queue, f"j{n}")
    assert list(expectations._expected) == ["j7", "j8", "j9"]
    for _ in range(10):
        expectations.waited_for("none")
    await put(queue, *(f"k{n}" for n in range(5)))
    assert list(expectations._expected) == ["k0", "k1", "k2"]


async def connected(queue: JobQueue) -> None:
    """Wait until the queue's listener has a connection."""
    with queue._listener.subscribed("none") as heard:
        assert await heard.next(5) == LOST


async def test_jobs_that_were_not_taken_are_not_expected(queue: JobQueue, hands: Hands):
    hand = await hands()
    done = await waited_for(queue, hand)
    expectations = queue._open.expectations
    for _ in range(5):
        expectations.waited_for("none")
    assert await queue.submit(JobSpec("echo", id=OTHER)) == await queue.get(OTHER)
    assert await queue.wait(OTHER, timeout=1) == done
    with pytest.raises(DuplicateJob):
        await queue.submit(JobSpec("echo", {"n": 1}, id=OTHER))
    async with JobQueue.connect(settings=evolve(queue.settings, max_pending=1)) as small:
        await connected(small)
        for _ in range(2):
            small._open.expectations.waited_for("none")
        await put(small, "j1")
        with pytest.raises(QueueFull):
            await put(small, "j2")
        assert list(small._open.expectations._expected) == ["j1"]
    assert not expectations._expected


async def test_the_same_job_may_be_submitted_and_waited_for_twice(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    queue._open.expectations.waited_for("none")
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(queue.submit, JobSpec("echo", id="j1"))
    waiters = [asyncio.create_task(queue.wait("j1", timeout=5)) for _ in range(2)]
    await checkpoint()
    await hand.finish(await hand.take_one())
    assert [await waiter for waiter in waiters] == [await queue.get("j1")] * 2
    assert not queue._listener._channels.keys() - queue._listener._left


async def test_large_payloads_do_not_go_where_others_listen(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    await put(queue, "j1", payload={"text": "x" * 5000})
    assert await listened_to(queue, "j1") == []
    waiter = asyncio.create_task(queue.wait("j1", timeout=5))
    await hand.finish(await hand.take_one())
    assert await waiter == await queue.get("j1")


async def test_after_a_lost_connection_an_expected_job_is_read(queue: JobQueue, hands: Hands):
    hand = await hands()
    async with link_to(queue.url) as (link, url), JobQueue.connect(url, settings=queue.settings) as far:
        await waited_for(far, hand)
        await put(far, "j1")
        await link.cut()
        await hand.finish(await hand.take_one())
        assert await far.wait("j1", timeout=5) == await queue.get("j1")

        far._open.expectations.waited_for("none")
        await connected(far)
        await put(far, "j2")
        waiter = asyncio.create_task(far.wait("j2", timeout=5))
        await checkpoint()
        await link.cut()
        await hand.finish(await hand.take_one())
        assert await waiter == await queue.get("j2")


async def test_a_submit_whose_connection_is_lost_is_made_again(queue: JobQueue, hands: Hands):
    hand = await hands()
    async with link_to(queue.url) as (link, url), JobQueue.connect(url, settings=queue.settings) as far:
        await waited_for(far, hand)
        link.fall_silent()
        async with anyio.create_task_group() as group:
            group.start_soon(far.submit, JobSpec("echo", id="j1"))
            await checkpoint()  # it was sent
            await link.cut()
            await link.come_up()
        waiter = asyncio.create_task(far.wait("j1", timeout=5))
        await hand.finish(await hand.take_one())
        assert (await waiter).status == "completed"
        assert (await queue.counts())[JobState.COMPLETED] == 2


@pytest.mark.parametrize("listens", [True, False])
async def test_who_submits_or_waits_while_the_queue_is_closed_is_told_so_soon(
    queue: JobQueue, hands: Hands, listens: bool
):
    async with link_to(queue.url) as (link, url):
        async with JobQueue.connect(url, settings=evolve(queue.settings, lease_s=0.5)) as far:
            await waited_for(far, await hands())
            if not listens:
                far._open.expectations._waits = 0
            link.fall_silent()
            calls = [asyncio.create_task(call) for call in (far.submit(JobSpec("echo", id="j1")), far.wait("j2"))]
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(2):
            ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in ended] == [QueueUnavailable] * 2


async def test_a_submit_that_was_cancelled_leaves_nothing_behind(queue: JobQueue, hands: Hands):
    await waited_for(queue, await hands())
    leaving = asyncio.create_task(queue.submit(JobSpec("echo", id="j1")))
    await checkpoint()
    await checkpoint()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not queue._open.expectations._expected
    assert not queue._listener._channels.keys() - queue._listener._left


async def test_a_script_that_redis_forgot_disturbs_nobody_who_listens(queue: JobQueue, hands: Hands):
    hand = await hands()
    await waited_for(queue, hand)
    with queue._listener.subscribed(queue.keys.done_channel("x")) as heard:
        await heard.subscribed()
        await queue.client.script_flush()
        [job] = await put(queue, "j1")
        assert await heard.next(0.05) is None  # not that something may have been missed
    assert job == await queue.get("j1")


async def test_a_refusal_that_nobody_waits_for_any_more_disturbs_nobody_who_listens(queue: JobQueue, hands: Hands):
    async with link_to(queue.url) as (link, url), JobQueue.connect(url, settings=queue.settings) as far:
        await waited_for(far, await hands())
        with far._listener.subscribed(queue.keys.done_channel("x")) as heard:
            await heard.subscribed()
            await queue.client.script_flush()
            link.fall_silent()
            leaving = asyncio.create_task(far.submit(JobSpec("echo", id="j1")))
            await anyio.wait_all_tasks_blocked()  # it was sent
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            for n in range(60):  # with so many its channel is left, too
                with far._listener.subscribed(f"none {n}"):
                    pass
            await link.come_up()
            assert await heard.next(0.1) is None
            assert await heard.subscribed(packed("PING")) == ["PONG"]


async def test_a_queue_that_is_closed_listens_to_nothing_any_more(queue: JobQueue, hands: Hands):
    again = JobQueue.connect(settings=queue.settings)
    hand = await hands()
    for n in range(2):
        async with again:
            await waited_for(again, hand, f"{OTHER}{n}")
            await put(again, f"j{n}")
            assert await listened_to(again, f"j{n}") == [f"j{n}"]
            await hand.take_one()
        assert not again._listener._channels.keys() - again._listener._left


@asynccontextmanager
async def waited_as_a_user(
    queue: JobQueue, hand: Hand, namespace: str
) -> AsyncIterator[tuple[JobQueue, Callable[..., Awaitable[object]]]]:
    """The queue as somebody who has waited for a job, and who may publish and subscribe as far as is allowed later."""
    user = namespace.strip("{}:")
    acl = partial(queue.client.execute_command, "ACL")
    await acl("SETUSER", user, "on", ">secret", "~*", "&*", "+@all")
    url = f"redis://{user}:secret@{queue.url.partition('@')[2]}"
    try:
        async with JobQueue.connect(url, settings=queue.settings) as far:
            await waited_for(far, hand)
            yield far, partial(acl, "SETUSER", user, "resetchannels")
    finally:
        await acl("DELUSER", user)


async def test_a_subscription_that_is_refused_hinders_no_submit(queue: JobQueue, hands: Hands, namespace: str):
    async with waited_as_a_user(queue, await hands(), namespace) as (far, allow):
        await allow("&nothing", "&*job:status:update")
        with far._listener.subscribed("nothing") as heard:
            assert await heard.next(5) == LOST  # Redis has ended the connection, and it is back
            [job] = await put(far, "j1")
            assert await heard.next(5) == LOST
        assert await queue.get("j1") == job
        assert not far._open.expectations._expected


async def test_a_submit_that_failed_half_way_is_not_made_again(queue: JobQueue, hands: Hands, namespace: str):
    """Made again, it would find the job that it left, and say that all is well."""
    async with waited_as_a_user(queue, await hands(), namespace) as (far, allow):
        await allow(f"&{namespace}done:*")
        with pytest.raises(exceptions.ResponseError, match="publish"):
            await put(far, "j1")
        assert not far._open.expectations._expected
    await queue.client.delete(queue.keys.job("j1"), queue.keys.payload("j1"))


async def test_a_redis_that_is_full_disturbs_nobody_who_listens(tmp_path: Path):
    async with (
        server(tmp_path) as full,
        JobQueue.connect(settings=fast_settings(full.url, "{emp}:", tmp_path)) as queue,
        full.client() as admin,
    ):
        await waited_for(queue, await Hands(queue)())
        with queue._listener.subscribed("x") as heard:
            await heard.subscribed()
            await admin.config_set("maxmemory", 1)
            async with anyio.create_task_group() as group:
                group.start_soon(put, queue, "j1")
                assert await heard.next(0.1) is None  # not that something may have been missed
                await admin.config_set("maxmemory", 0)
        assert (await queue.get("j1")).status == "pending"
