"""Following a job to its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from emp_core.errors import JobNotFound
from emp_core.jobs.codec import encode_error
from emp_core.jobs.model import Destination, Job, JobError, JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.link import link_to
from emp_core.testing.workers import RunningWorker

from .hands import Hands, end_lease, put


class Commands:
    """What clients send to Redis that names a job; not what scripts do."""

    def __init__(self, queue: JobQueue, monitor: Any, job_id: str) -> None:
        self._queue = queue
        self._monitor = monitor
        self._job_id = job_id

    async def names(self) -> list[str]:
        """The names of the commands since it was asked last."""
        await self._queue.client.echo(f"so far {self._job_id}")
        names: list[str] = []
        while not (command := (await self._monitor.next_command()))["command"].startswith("ECHO so far"):
            name = command["command"].split()[0]
            if command["client_type"] != "lua" and self._job_id in command["command"] and name != "PUBSUB":
                names.append(name)
        return names


@asynccontextmanager
async def commands_of(queue: JobQueue, job_id: str) -> AsyncIterator[Commands]:
    """The commands that name a job, from now on."""
    with queue._listener.subscribed(queue.keys.done_channel("none")) as heard:
        while not await heard.subscribed():  # the listener is not connected yet
            await heard.next(5)
    async with queue.client.monitor() as monitor:
        yield Commands(queue, monitor, job_id)


@asynccontextmanager
async def waiting(queue: JobQueue, job_id: str) -> AsyncIterator["asyncio.Task[Job]"]:
    """Somebody who waits for the job, and has been told that it is not done yet."""
    waiter = asyncio.create_task(queue.wait(job_id, timeout=10))
    with anyio.fail_after(5):
        channel = queue.keys.done_channel(job_id)
        while (await queue.client.pubsub_numsub(channel))[0][1] == 0:  # noqa: ASYNC110 - Redis tells nobody
            await anyio.sleep(0.005)
    yield waiter
    await waiter


async def test_the_outcome_brings_the_whole_job_to_who_waits_for_it(queue: JobQueue, hands: Hands):
    hand = await hands()
    [job] = await put(queue, "j1", payload={"text": "ü/\x00"}, labels={"a": "b"}, timeout_s=5)
    claimed = await hand.take_one()
    async with commands_of(queue, job.id) as commands, waiting(queue, job.id) as waiter:
        assert await commands.names() == ["SUBSCRIBE", "HGETALL", "EVAL"]
        await hand.finish(claimed, result='{"success":true,"data":{"said":"ü/"},"artifacts":[]}')
        done = await waiter
        assert set(await commands.names()) == {"EVALSHA"}  # twice where the script was not known yet
    assert done == await queue.get(job.id)
    assert (done.status, done.payload) == ("completed", {"text": "ü/\x00"})


async def test_a_job_that_is_done_is_waited_for_in_one_round_trip(queue: JobQueue, hands: Hands):
    hand = await hands()
    [job] = await put(queue, "j1", payload={"n": 1})
    await hand.finish(await hand.take_one())
    async with commands_of(queue, job.id) as commands:
        done = await queue.wait(job.id, timeout=5)
        assert await commands.names() == ["SUBSCRIBE", "HGETALL", "EVAL"]
    assert done == await queue.get(job.id)


@pytest.mark.parametrize("how", ["failed", "lost"])
async def test_whoever_settles_a_job_tells_it_as_a_whole(queue: JobQueue, hands: Hands, how: str):
    hand = await hands(max_crashes=1)
    [job] = await put(queue, "j1", payload={"n": 1})
    claimed = await hand.take_one()
    async with commands_of(queue, job.id) as commands, waiting(queue, job.id) as waiter:
        assert await commands.names() == ["SUBSCRIBE", "HGETALL", "EVAL"]
        if how == "failed":
            error = encode_error(JobError("broken", "it broke", details={"n": [1]}))
            await hand.finish(claimed, "failed", error=error)
        else:
            await end_lease(queue, job.id)
            await hand.house.sweep(rescue=True)
        assert (await waiter).status == "failed"
        assert set(await commands.names()) <= {"EVALSHA", "ZADD"}
    assert await waiter == await queue.get(job.id)


async def test_whoever_cancels_a_job_tells_it_as_a_whole(queue: JobQueue):
    [job] = await put(queue, "j1", payload={"n": 1})
    async with commands_of(queue, job.id) as commands, waiting(queue, job.id) as waiter:
        await commands.names()
        cancelled = await queue.cancel(job.id)
        assert await waiter == cancelled
        told = await commands.names()
        assert [name for name in told if name != "EVALSHA"] == ["HGETALL", "GET"]  # the canceller's own look


@pytest.mark.parametrize("what", ["payload", "result"])
async def test_large_jobs_are_told_as_they_are(queue: JobQueue, hands: Hands, what: str):
    """Neither over the subscribed connection, which Redis closes when too much is on its way, nor kept by those who wait."""
    hand, large = await hands(), "x" * 20_000
    [job] = await put(queue, "j1", payload={"text": large if what == "payload" else ""})
    claimed = await hand.take_one()
    result = f'{{"success":true,"data":{{"text":"{large if what == "result" else ""}"}},"artifacts":[]}}'
    async with waiting(queue, job.id) as waiter:
        with queue._listener.subscribed(queue.keys.done_channel(job.id)) as heard:
            await hand.finish(claimed, result=result)
            assert await waiter == await queue.get(job.id)
            told = [text for text in [await heard.next(0) for _ in range(3)] if text is not None]
            _, payload = await heard.subscribed(*queue._open.reader.questions(job.id))
        assert await queue.wait(job.id, timeout=5) == await waiter
    assert payload == (None if what == "payload" else '{"text":""}')
    assert told[0] == "completed"
    assert [len(text) < 16_384 for text in told] == [True] * (2 if what == "payload" else 1)


async def test_the_key_of_a_jobs_own_store_is_not_published(queue: JobQueue, hands: Hands):
    hand = await hands()
    store = {"bucket": "b", "accountName": "account", "accountKey": "c2VjcmV0"}
    [job] = await put(queue, "j1", ctx=Destination(storage=store))
    claimed = await hand.take_one()
    async with waiting(queue, job.id) as waiter:
        with queue._listener.subscribed(queue.keys.done_channel(job.id)) as heard:
            await hand.finish(claimed, "failed", error=encode_error(JobError("broken", "it broke")))
            done = await waiter
            assert [await heard.next(0) for _ in range(2)] == ["failed", None]
    assert done == await queue.get(job.id)
    assert done.ctx == Destination(storage=store)


@pytest.mark.parametrize(
    "text", ["", "no state", "{", '{"status":"completed"', "[" * 10_000, "[]", '{"status":1}', '{"status":[]}', "{}"]
)
async def test_what_cannot_be_read_is_not_believed(queue: JobQueue, hands: Hands, text: str):
    hand = await hands()
    [job] = await put(queue, "j1")
    claimed = await hand.take_one()
    async with waiting(queue, job.id) as waiter:
        assert await queue.client.publish(queue.keys.done_channel(job.id), text) == 1
        await hand.finish(claimed)
        assert await waiter == await queue.get(job.id)


async def test_an_outcome_that_nobody_told_is_seen_when_the_connection_is_back(queue: JobQueue, hands: Hands):
    hand = await hands()
    [job] = await put(queue, "j1", payload={"n": 1})
    claimed = await hand.take_one()
    async with (
        link_to(queue.url) as (link, url),
        JobQueue.connect(url, settings=queue.settings) as other,
        waiting(other, job.id) as waiter,
    ):
        await link.go_down()
        await hand.finish(claimed)
        await link.come_up()
        with anyio.fail_after(4):  # sooner than it would look by itself
            assert await waiter == await queue.get(job.id)


async def test_a_job_whose_payload_is_gone_is_waited_for_all_the_same(queue: JobQueue, hands: Hands):
    hand = await hands()
    [job] = await put(queue, "j1")
    claimed = await hand.take_one()
    await queue.client.delete(queue.keys.payload(job.id))
    async with waiting(queue, job.id) as waiter:
        await hand.finish(claimed)
        done = await waiter
    assert (done, done.payload) == (await queue.get(job.id), None)


async def test_nobody_waits_for_a_job_that_is_not_there(queue: JobQueue):
    with pytest.raises(JobNotFound):
        await queue.wait("none-such", timeout=5)


async def test_what_is_noted_after_the_outcome_keeps_nobody_waiting(queue: JobQueue, worker: RunningWorker):
    """A submitter that found nobody serving notes so, and the job may have been done meanwhile."""
    job = await queue.submit(JobSpec("echo"))
    await queue.wait(job.id, timeout=10)
    await queue._open.calls.run("note", {"events_max": 1000, "id": job.id, "name": "unserved", "fragment": ""})
    with anyio.fail_after(4):
        names = [event.name async for event in queue.events(job.id)]
    assert names[-2:] == ["completed", "unserved"]


async def test_a_finished_job_is_followed_at_once_after_connecting(queue: JobQueue, worker: RunningWorker):
    job = await queue.submit(JobSpec("echo"))
    await queue.wait(job.id, timeout=10)
    async with JobQueue.connect(settings=queue.settings) as other:
        with anyio.fail_after(2):  # less than a subscription that was missed is waited for
            assert (await other.wait(job.id)).status == "completed"
