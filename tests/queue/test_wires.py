"""A connection that is kept open: what comes on it when nobody asked, and what it says when it ends."""

import anyio
import pytest
from anyio.abc import SocketStream
from redis import exceptions

from .answering import PING, links_to, silence

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


async def greet(stream: SocketStream) -> None:
    """Answers the greeting of a wire."""
    assert b"HELLO" in await stream.receive()
    await stream.send(HELLO)


async def greet_only(stream: SocketStream) -> None:
    """Answers nothing else."""
    await greet(stream)
    await silence(stream)


async def test_a_wire_tells_what_comes_when_it_comes():
    async def publish(stream: SocketStream) -> None:
        await greet(stream)
        await stream.send(b"+PONG\r\n>3\r\n$7\r\nmessage\r\n$1\r\nx\r\n")
        await stream.send(b"$2\r\nhi\r\n")
        await silence(stream)

    heard, all_heard = [], anyio.Event()

    def hear(reply: object) -> None:
        heard.append(reply)
        if len(heard) == 2:
            all_heard.set()

    async with links_to(publish) as links:
        wire = await links.wire(hear, lambda _: False)
        wire.send(PING)
        with anyio.fail_after(5):
            await all_heard.wait()
        wire.drop()
    assert heard == ["PONG", ["message", "x", "hi"]]


async def test_a_wire_on_which_nothing_is_due_may_be_silent_and_one_that_owes_a_reply_may_not():
    async with links_to(greet_only, reply_s=0.1) as links:
        wire = await links.wire(lambda _: None, lambda _: False)
        with anyio.move_on_after(0.3) as quiet:
            await wire.ended()
        assert quiet.cancelled_caught

        async def go_on_asking() -> None:  # which does not make up for it
            while True:
                wire.send(PING)
                await anyio.sleep(0.03)

        async with anyio.create_task_group() as group:
            group.start_soon(go_on_asking)
            with anyio.fail_after(5), pytest.raises(exceptions.TimeoutError):
                await wire.ended()
            group.cancel_scope.cancel()


async def test_a_wire_owes_the_reply_of_what_was_sent_along_with_its_greeting():
    async with links_to(greet_only, reply_s=0.1) as links:
        wire = await links.wire(lambda _: None, lambda _: False)
        wire.send(PING)
        with anyio.fail_after(5), pytest.raises(exceptions.TimeoutError):
            await wire.ended()


async def test_a_wire_that_answered_one_of_two_commands_owes_the_other_to_whom_says_so():
    async def answer_once(stream: SocketStream) -> None:
        await greet(stream)
        await stream.send(b":1\r\n")
        await silence(stream)

    async with links_to(answer_once, reply_s=0.1) as links:

        def hear(reply: object) -> None:
            assert reply == 1
            wire.expect_reply()

        wire = await links.wire(hear, lambda _: False)
        wire.send(PING, PING)
        with anyio.fail_after(5), pytest.raises(exceptions.TimeoutError):
            await wire.ended()


@pytest.mark.parametrize(
    ("sent", "error", "said"),
    [
        (b"-NOPERM no\r\n", exceptions.NoPermissionError, "no"),
        (HELLO + b"HTTP/1.1 400 Bad Request\r\n", exceptions.ConnectionError, "cannot be read"),
        (HELLO + b"$2\r\n\xff\xfe\r\n", exceptions.ConnectionError, "cannot be read"),
        (b"", exceptions.ConnectionError, "lost"),
    ],
)
async def test_a_wire_says_why_it_ended(sent: bytes, error: type[Exception], said: str):
    async def answer(stream: SocketStream) -> None:
        await stream.receive()
        if sent:
            await stream.send(sent)
            await silence(stream)

    async with links_to(answer) as links:
        wire = await links.wire(lambda _: None, lambda _: False)
        with anyio.fail_after(5), pytest.raises(error, match=said):
            await wire.ended()
