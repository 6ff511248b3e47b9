"""Hearing what is published, whatever becomes of the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from redis import exceptions

from emp_core.config import Settings
from emp_core.queue.connection import connect
from emp_core.queue.listening import LOST, Listener
from emp_core.queue.queue import JobQueue
from emp_core.queue.sending import packed
from emp_core.testing.link import link_to


@asynccontextmanager
async def listening(url: str, *, lease_s: float = 15.0, ping_s: float = 1.5) -> AsyncIterator[Listener]:
    """A listener that runs."""
    listener = Listener(lambda: connect(url, Settings(lease_s=lease_s)), ping_s)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.run)
        yield listener
        group.cancel_scope.cancel()


async def test_what_is_published_is_heard_by_all_who_listen(queue: JobQueue, namespace: str):
    name, other = f"{namespace}x", f"{namespace}y"
    async with listening(queue.url) as listener:
        with listener.subscribed(name) as one, listener.subscribed(name) as two, listener.subscribed(other) as three:
            assert await one.next(5) == LOST  # they came before the connection: something may be missing
            assert await queue.client.publish(name, "1") == 1
            assert await queue.client.publish(name, "2") == 1
            assert [await one.next(5) for _ in range(2)] == ["1", "2"]
            assert [await two.next(5) for _ in range(3)] == [LOST, "1", "2"]
            assert [await three.next(limit_s) for limit_s in (5, 0.01)] == [LOST, None]


async def test_the_last_of_what_came_stands_for_all_before_it(queue: JobQueue, namespace: str):
    name = f"{namespace}x"
    async with listening(queue.url) as listener:
        await connected(listener, name)
        with listener.subscribed(name) as heard:
            await heard.subscribed()
            for text in ("1", "2", "3"):
                await queue.client.publish(name, text)
            await heard.subscribed()  # whatever was published before has come
            assert await heard.last(5) == "3"
            assert await heard.last(0.01) is None


async def connected(listener: Listener, name: str) -> None:
    """Wait until the listener has a connection."""
    with listener.subscribed(name) as heard:
        assert await heard.next(5) == LOST


async def test_a_channel_is_heard_from_when_the_block_is_entered(queue: JobQueue, namespace: str):
    async with listening(queue.url) as listener:
        await connected(listener, f"{namespace}first")
        for i in range(200):
            with listener.subscribed(f"{namespace}{i}") as heard:
                await heard.subscribed()
                assert await queue.client.publish(f"{namespace}{i}", "now") == 1
                assert await heard.next(5) == "now"


async def test_channels_that_nobody_listens_to_are_left(queue: JobQueue, namespace: str):
    async with listening(queue.url, ping_s=0.1) as listener:
        await connected(listener, f"{namespace}first")
        for i in range(120):
            with listener.subscribed(f"{namespace}{i}") as heard:
                await heard.subscribed()
                assert len(await queue.client.pubsub_channels(f"{namespace}*")) <= 51
        with anyio.fail_after(5):
            while await queue.client.pubsub_channels(f"{namespace}*"):  # noqa: ASYNC110 - Redis tells nobody
                await anyio.sleep(0.01)


async def test_a_channel_that_somebody_comes_back_to_is_heard(queue: JobQueue, namespace: str):
    name = f"{namespace}x"
    async with listening(queue.url) as listener:
        await connected(listener, name)
        with listener.subscribed(name) as heard:
            await heard.subscribed()
            await queue.client.publish(name, "again")
            assert await heard.next(5) == "again"


async def test_after_a_lost_connection_everybody_is_told_once_it_is_back(queue: JobQueue, namespace: str):
    async with link_to(queue.url) as (link, url), listening(url) as listener:
        with listener.subscribed(f"{namespace}x") as heard:
            assert await heard.next(5) == LOST
            await link.cut()
            assert await heard.next(5) == LOST
            # It was told when Redis had confirmed the new subscription: nothing is missed from then on.
            assert await queue.client.publish(f"{namespace}x", "after") == 1
            assert await heard.next(5) == "after"


async def test_a_connection_that_goes_silent_is_made_anew(queue: JobQueue, namespace: str):
    async with link_to(queue.url) as (link, url), listening(url, lease_s=0.4, ping_s=0.1) as listener:
        with listener.subscribed(f"{namespace}x") as heard:
            assert await heard.next(5) == LOST
            link.fall_silent()
            assert await heard.next(0.6) is None
            await link.come_up()  # the old connection, too
            assert await heard.next(10) == LOST


async def test_nobody_waits_for_a_subscription_while_redis_is_away(queue: JobQueue, namespace: str):
    async with link_to(queue.url) as (link, url):
        await link.go_down()
        async with listening(url) as listener:
            with anyio.fail_after(1), listener.subscribed(f"{namespace}x") as heard:
                assert await heard.subscribed() == []
            await link.come_up()
            await connected(listener, f"{namespace}y")


async def test_questions_are_answered_once_the_channel_is_subscribed_to(queue: JobQueue, namespace: str):
    name, question = f"{namespace}x", packed("GET", f"{namespace}state")
    await queue.client.set(f"{namespace}state", "before", ex=60)
    async with listening(queue.url) as listener:
        await connected(listener, f"{namespace}first")
        with listener.subscribed(name) as one, listener.subscribed(name) as two:
            answers = [await one.subscribed(question), await two.subscribed(question, packed("EXISTS", name), question)]
            assert await queue.client.publish(name, "after") == 1
            assert (answers, await one.next(5), await two.next(5)) == (
                [["before"], ["before", 0, "before"]],
                "after",
                "after",
            )
        with listener.subscribed(name) as heard:
            assert await heard.subscribed(packed("HGETALL", f"{namespace}nothing")) == [{}]
            assert await heard.subscribed(packed("GET", f"{namespace}nothing")) == [None]


async def test_whoever_leaves_while_it_is_asked_takes_nobodys_answer(queue: JobQueue, namespace: str):
    keys = [f"{namespace}{i}" for i in range(20)]
    for key in keys:
        await queue.client.set(key, key, ex=60)
    answers: dict[str, list[str]] = {}

    async def ask(key: str) -> None:
        with listener.subscribed(f"{namespace}channel") as heard:
            answers[key] = await heard.subscribed(packed("GET", key), packed("GET", key))

    async with listening(queue.url) as listener:
        await connected(listener, f"{namespace}first")
        async with anyio.create_task_group() as group:
            for i, key in enumerate(keys):
                if i % 2:
                    group.start_soon(ask, key)
                else:
                    leaving = asyncio.create_task(ask(key))
                    await checkpoint()  # it has asked
                    leaving.cancel()
    assert answers == {key: [key, key] for key in keys[1::2]}


async def test_nobody_waits_for_an_answer_that_does_not_come(queue: JobQueue, namespace: str):
    async def ask() -> None:
        with listener.subscribed(f"{namespace}x") as heard:
            assert await heard.subscribed(packed("GET", "x")) == []

    async with link_to(queue.url) as (link, url), listening(url) as listener:
        await connected(listener, f"{namespace}first")
        link.fall_silent()
        with anyio.fail_after(1):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await checkpoint()  # it has asked
                await link.cut()


async def test_what_is_no_text_is_not_heard(queue: JobQueue, namespace: str):
    name = f"{namespace}x"
    async with listening(queue.url) as listener:
        with listener.subscribed(name) as heard:
            assert await heard.next(5) == LOST
            assert await queue.client.publish(name, b"\xff\xfe") == 1
            assert await heard.next(5) == LOST  # something was missed
            assert await queue.client.publish(name, "text") == 1
            assert await heard.next(5) == "text"


async def test_a_refusal_is_told(queue: JobQueue):
    client = connect(queue.url)
    async with client.wire(lambda _: None) as wire:
        wire.send(packed("SUBSCRIBE"))
        with pytest.raises(exceptions.ResponseError, match="wrong number of arguments"):
            await wire.ended()
    await client.aclose()


async def test_a_question_that_redis_refuses_harms_nobody_else(queue: JobQueue, namespace: str):
    name, key = f"{namespace}x", f"{namespace}text"
    await queue.client.set(key, "no hash")
    async with listening(queue.url) as listener:
        with listener.subscribed(name) as other:
            assert await other.next(5) == LOST
            with listener.subscribed(f"{namespace}y") as heard:
                assert await heard.subscribed(packed("GET", name), packed("HGET", key, "status")) == []
            assert await other.next(5) == LOST
            assert await queue.client.publish(name, "still") == 1
            assert await other.next(5) == "still"
    await queue.client.delete(key)
