"""What becomes of calls when what is at the other end does not answer as it should."""

import asyncio

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint
from redis import exceptions
from redis.asyncio import ConnectionPool

from emp_core.queue.client import Client
from emp_core.queue.connection import AWAY

from .answering import PING, Handler, links_to, silence


async def pong(stream: SocketStream) -> None:
    """Answers every PING."""
    while True:
        for _ in range((await stream.receive()).count(b"PING")):
            await stream.send(b"+PONG\r\n")


class Counted:
    """Counts the connections that were made to a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.made = 0

    async def __call__(self, stream: SocketStream) -> None:
        self.made += 1
        await self._handler(stream)


async def test_replies_come_in_the_order_of_the_commands():
    async with links_to(pong) as links:
        assert await links.ask(PING, 1) == ["PONG"]
        assert await links.ask(PING * 3, 3) == ["PONG"] * 3


async def test_calls_one_after_the_other_share_a_connection():
    server = Counted(pong)
    async with links_to(server) as links:
        for _ in range(5):
            await links.ask(PING, 1)
    assert server.made == 1


async def test_calls_beyond_the_most_connections_wait_for_their_turn():
    server = Counted(pong)
    async with links_to(server, most=2) as links:
        replies = await asyncio.gather(*(links.ask(PING, 1) for _ in range(10)))
    assert replies == [["PONG"]] * 10
    assert server.made == 2


async def test_a_server_that_says_nothing_is_away():
    server = Counted(silence)
    async with links_to(server, reply_s=0.05) as links:
        for _ in range(2):
            with pytest.raises(exceptions.TimeoutError):
                await links.ask(PING, 1)
    assert server.made == 2


async def test_a_late_reply_is_waited_for_once_and_not_on_every_connection():
    """A server that died without a word leaves all of them behind."""
    hung = anyio.Event()

    async def pong_until_hung(stream: SocketStream) -> None:
        old = not hung.is_set()
        while True:
            asked = (await stream.receive()).count(b"PING")
            if not (old and hung.is_set()):
                await stream.send(b"+PONG\r\n" * asked)

    server = Counted(pong_until_hung)
    async with links_to(server, reply_s=0.1) as links:
        await asyncio.gather(*(links.ask(PING, 1) for _ in range(3)))
        assert server.made == 3
        hung.set()
        with pytest.raises(exceptions.TimeoutError):
            await links.ask(PING, 1)
        assert await links.ask(PING, 1) == ["PONG"]


async def test_a_reply_that_keeps_coming_is_not_late():
    async def slowly(stream: SocketStream) -> None:
        await stream.receive()
        for piece in (b"$5", b"\r\n", b"hel", b"lo\r\n"):
            await anyio.sleep(0.15)
            await stream.send(piece)

    async with links_to(slowly, reply_s=0.5) as links:
        assert await links.ask(PING, 1) == ["hello"]


async def test_a_call_that_is_sent_slowly_is_not_late():
    async def slowly(stream: SocketStream) -> None:
        for part, pause_s in ((20_000_000, 0.4), (10_000_000, 0.4), (10_000_000, 0)):
            read = 0
            while read < part:
                read += len(await stream.receive(part - read))
            await anyio.sleep(pause_s)
        await stream.send(b"+OK\r\n")

    async with links_to(slowly, reply_s=0.6) as links:
        assert await links.ask(b"x" * 40_000_000, 1) == ["OK"]


async def test_a_connection_that_was_closed_meanwhile_is_replaced():
    async def once(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"+PONG\r\n")

    server = Counted(once)
    async with links_to(server) as links:
        await links.ask(PING, 1)
        with anyio.fail_after(5):
            while server.made < 3:
                try:
                    assert await links.ask(PING, 1) == ["PONG"]
                except exceptions.ConnectionError:
                    continue  # it was being closed when this was sent


async def test_a_connection_that_is_lost_on_the_way_is_told():
    async def hang_up(stream: SocketStream) -> None:
        await stream.receive()

    async with links_to(hang_up) as links:
        with pytest.raises(exceptions.ConnectionError, match="lost"):
            await links.ask(PING, 1)


async def test_what_cannot_be_read_ends_the_connection():
    async def babble(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 400 Bad Request\r\n")
        await silence(stream)

    server = Counted(babble)
    async with links_to(server) as links:
        for _ in range(2):
            with pytest.raises(exceptions.ConnectionError, match="cannot be read"):
                await links.ask(PING, 1)
    assert server.made == 2


async def test_what_nobody_asked_for_is_not_taken_for_the_next_reply():
    async def twice(stream: SocketStream) -> None:
        while True:
            await stream.receive()
            await stream.send(b"+ONE\r\n+TWO\r\n")

    server = Counted(twice)
    async with links_to(server) as links:
        for _ in range(2):
            with pytest.raises(exceptions.ConnectionError, match="more than was asked for"):
                await links.ask(PING, 1)
    assert server.made == 2


async def test_a_reply_that_is_no_text_fails_for_itself():
    async def bytes_first(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"$2\r\n\xff\xfe\r\n+PONG\r\n")

    async with links_to(bytes_first) as links:
        first, second = await links.ask(PING * 2, 2)
    assert isinstance(first, UnicodeDecodeError)
    assert second == "PONG"


async def test_a_refusal_is_a_reply():
    async def refuse(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"-NOSCRIPT no such script\r\n+PONG\r\n")

    async with links_to(refuse) as links:
        first, second = await links.ask(PING * 2, 2)
    assert isinstance(first, exceptions.NoScriptError)
    assert second == "PONG"


async def test_a_server_that_loads_its_data_is_away_for_commands_that_are_sent_together_too():
    async def loading(stream: SocketStream) -> None:
        while True:
            await stream.send(
                b"-LOADING Redis is loading the dataset in memory\r\n" * (await stream.receive()).count(b"GET")
            )

    async with links_to(loading) as links:
        client = Client(ConnectionPool(), links, None)
        with pytest.raises(AWAY):
            await client.get("one")
        async with client.pipeline(transaction=False) as pipe:
            pipe.get("one")
            pipe.get("two")
            with pytest.raises(AWAY):
                await pipe.execute()


async def test_a_cancelled_call_takes_its_connection_with_it():
    tell, asked = anyio.create_memory_object_stream[None](1)

    async def silent(stream: SocketStream) -> None:
        await stream.receive()
        await tell.send(None)
        await silence(stream)

    server = Counted(silent)
    async with tell, asked, links_to(server) as links:
        for _ in range(3):
            async with anyio.create_task_group() as group:
                group.start_soon(links.ask, PING, 1)
                await asked.receive()
                group.cancel_scope.cancel()
    assert server.made == 3


class Late:
    """Answers when it is told to, and tells when it was asked."""

    def __init__(self) -> None:
        self.asked, self.answer = anyio.Event(), anyio.Event()

    async def __call__(self, stream: SocketStream) -> None:
        await stream.receive()
        self.asked.set()
        await self.answer.wait()
        await stream.send(b"+PONG\r\n")
        await silence(stream)


async def test_a_patient_call_comes_back_after_it_was_cancelled():
    server, replies = Late(), []
    async with links_to(server) as links:
        async with anyio.create_task_group() as group:

            async def call() -> None:
                replies.extend(await links.ask(PING, 1, patience_s=5.0))
                await checkpoint()  # where it is cancelled
                replies.append("went on")

            group.start_soon(call)
            await server.asked.wait()
            group.cancel_scope.cancel()
            server.answer.set()
        assert replies == ["PONG"]


async def test_patience_has_an_end():
    server = Late()
    async with links_to(server) as links:
        with anyio.fail_after(3):
            async with anyio.create_task_group() as group:
                group.start_soon(links.ask, PING, 1, 0.05)
                await server.asked.wait()
                group.cancel_scope.cancel()
        assert group.cancel_scope.cancelled_caught


async def test_a_patient_call_whose_connection_is_lost_is_cancelled_or_told():
    async def hang_up(stream: SocketStream) -> None:
        await stream.receive()
        asked.set()
        await cancelled.wait()

    asked, cancelled = anyio.Event(), anyio.Event()
    failures: list[BaseException] = []
    async with links_to(hang_up) as links, anyio.create_task_group() as group:

        async def call() -> None:
            try:
                await links.ask(PING, 1, patience_s=5.0)
            except exceptions.ConnectionError as error:
                failures.append(error)

        group.start_soon(call)
        await asked.wait()
        group.cancel_scope.cancel()
        cancelled.set()
    assert len(failures) == 1


async def test_a_bare_task_that_is_cancelled_ends_at_once():
    server = Late()
    async with links_to(server) as links:
        task = asyncio.create_task(links.ask(PING, 1, patience_s=60.0))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_ends_the_calls_that_are_on_their_way():
    server = Late()
    async with links_to(server) as links:
        task = asyncio.create_task(links.ask(PING, 1))
        await server.asked.wait()
        links.close()
        with pytest.raises(exceptions.ConnectionError):
            await task


async def test_closed_links_make_no_new_connections():
    server = Counted(pong)
    async with links_to(server) as links:
        await links.ask(PING, 1)
        links.close()
        with pytest.raises(exceptions.ConnectionError, match="closed"):
            await links.ask(PING, 1)
    assert server.made == 1


async def test_a_connection_that_was_being_made_when_links_were_closed_is_not_used():
    async with links_to(pong) as links:
        task = asyncio.create_task(links.ask(PING, 1))
        await checkpoint()
        links.close()
        with pytest.raises(exceptions.ConnectionError, match="closed"):
            await task


async def test_forgotten_connections_are_not_used_again():
    server = Counted(pong)
    async with links_to(server) as links:
        await links.ask(PING, 1)
        links.forget()
        await links.ask(PING, 1)
    assert server.made == 2
