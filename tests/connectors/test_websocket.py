from collections.abc import Mapping
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from attrs import evolve

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.socket_frames import WaitingFrames
from emp_core.connectors.websocket import Gap, MessageType, Socket, SocketOptions, WebSocketConnector
from emp_core.errors import AuthenticationFailed, ConnectionLost, ServiceUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.retry import Backoff

from .web import serving

QUICK = SocketOptions(reopen_tries=0, backoff=Backoff(base_s=0, max_s=0), close_timeout_s=0.2, write_timeout_s=0.2)


class TickerConnector(WebSocketConnector):
    service_type = "ticker"
    socket_options = QUICK

    def classify_message(self, data: Any) -> MessageType:
        return {"hello": MessageType.CONNECTION, "tick": MessageType.PROGRESS}.get(data["type"], MessageType.UNKNOWN)

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        raise NotImplementedError


def ticker(url: str, **options: Any) -> TickerConnector:
    connector = TickerConnector(ServiceConfig("ticker"), base_url=url)
    connector.socket_options = evolve(QUICK, **options)  # type: ignore[misc]  # one test's bounds
    return connector


async def opened(request: web.Request, **options: Any) -> web.WebSocketResponse:
    response = web.WebSocketResponse(**options)
    await response.prepare(request)
    return response


async def test_frames_arrive_whole_and_in_order():
    big = "ä" * 700_000

    async def answer(request: web.Request) -> web.WebSocketResponse:
        assert request.query == {"clientId": "me"}
        socket = await opened(request)
        await socket.send_str("one")
        await socket.send_bytes(b"\x00two")
        await socket.send_str(big)
        await socket.receive()
        return socket

    async with serving(answer) as url:
        connector = ticker(url)
        async with connector.open_socket("/ws", params={"clientId": "me"}) as socket:
            assert [await socket.receive() for _ in range(3)] == ["one", b"\x00two", big]
        await connector.disconnect()


async def test_a_consumer_that_does_not_read_never_holds_up_the_service():
    sent = anyio.Event()

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request)
        for _ in range(200):
            await socket.send_bytes(b"x" * 200_000)
        sent.set()
        await socket.receive()
        return socket

    async with serving(answer) as url:
        connector = ticker(url)
        async with connector.open_socket("/ws") as socket:
            with anyio.fail_after(20):
                await sent.wait()
            assert await socket.receive() == b"x" * 200_000
        await connector.disconnect()


async def test_at_the_bound_what_may_be_dropped_is_dropped_and_the_rest_is_kept():
    waiting = WaitingFrames(max_bytes=1000, max_frames=60, may_drop=lambda frame: isinstance(frame, bytes))
    for number in range(50):
        assert waiting.put(b"preview" * 5)
        assert waiting.put(f"result {number}")
    assert waiting.put("last")
    assert waiting.dropped > 0
    kept = []
    while (frame := await waiting.take()) != "last":
        kept.append(frame)
    assert [frame for frame in kept if isinstance(frame, str)] == [f"result {number}" for number in range(50)]
    assert waiting.put("y" * 1000)
    assert not waiting.put("one more")


async def test_at_the_bound_a_socket_ends_rather_than_lose_frames_in_silence():
    closed = anyio.Event()

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request)
        for number in range(10):
            await socket.send_str(f"result {number}")
        await socket.receive()
        closed.set()
        return socket

    async with serving(answer) as url:
        connector = ticker(url, max_waiting_frames=5)
        async with connector.open_socket("/ws") as socket:
            with anyio.fail_after(20):
                await closed.wait()
            assert [await socket.receive() for _ in range(5)] == [f"result {number}" for number in range(5)]
            with pytest.raises(ConnectionLost, match="fell too far behind"):
                await socket.receive()
        await connector.disconnect()


@pytest.mark.parametrize("fragments", [1, 1000])
async def test_a_frame_longer_than_the_cap_ends_the_socket_while_it_arrives(fragments: int):
    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request, compress=False)
        piece = b"x" * (64 * 2**20 // fragments)
        assert socket._writer is not None
        try:
            for number in range(fragments):
                kind = aiohttp.WSMsgType.BINARY if number == 0 else aiohttp.WSMsgType.CONTINUATION
                await _send_fragment(socket, piece, kind, last=number == fragments - 1)
        except (ConnectionError, aiohttp.ClientConnectionResetError):
            pass
        return socket

    async with serving(answer) as url:
        connector = ticker(url, max_frame_bytes=2**20)
        async with connector.open_socket("/ws") as socket:
            with anyio.fail_after(30), pytest.raises(ConnectionLost, match="longer than"):
                await socket.receive()
        await connector.disconnect()


async def _send_fragment(socket: web.WebSocketResponse, piece: bytes, kind: Any, *, last: bool) -> None:
    """A fragment written by hand: aiohttp sends whole messages only."""
    assert socket._writer is not None
    head = bytes([(0x80 if last else 0) | int(kind), 127]) + len(piece).to_bytes(8, "big")
    socket._writer.transport.write(head + piece)
    await socket._writer.protocol._drain_helper()


async def test_a_lost_socket_is_opened_again_and_greeted_again_and_the_gap_is_told():
    greetings: list[Any] = []

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request)
        greetings.append(await socket.receive_json())
        await socket.send_str(f"life {len(greetings)}")
        if len(greetings) == 1:
            assert request.transport is not None
            request.transport.abort()
        await socket.receive()
        return socket

    async with serving(answer) as url:
        connector = ticker(url, reopen_tries=3)
        async with connector.open_socket("/ws", greeting=[{"type": "hello"}]) as socket:
            seen: list[Any] = []
            with anyio.fail_after(20):
                while "life 2" not in seen:
                    seen.append(await socket.receive())
        await connector.disconnect()
    assert seen[0] == "life 1"
    assert Gap.REOPENED in seen
    assert greetings == [{"type": "hello"}] * 2


async def test_a_service_that_is_gone_ends_the_socket_after_its_tries():
    lives = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal lives
        lives += 1
        if lives > 1:
            return web.Response(status=502)
        socket = await opened(request)
        await socket.close()
        return socket

    async with serving(answer) as url:
        connector = ticker(url, reopen_tries=2)
        async with connector.open_socket("/ws") as socket:
            with anyio.fail_after(20), pytest.raises(ConnectionLost):
                await _gaps_to_the_end(socket)
        await connector.disconnect()
    assert lives == 3


async def _gaps_to_the_end(socket: Socket) -> None:
    while True:
        assert await socket.receive() is Gap.LOST


@pytest.mark.parametrize(("status", "expected"), [(403, AuthenticationFailed), (502, ServiceUnavailable)])
async def test_a_refused_handshake_is_the_error_of_its_status(status: int, expected: type[Exception]):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(answer) as url:
        connector = ticker(url)
        with pytest.raises(expected):
            async with connector.open_socket("/ws"):
                pass
        await connector.disconnect()


async def test_a_socket_that_need_not_open_is_a_gap_until_it_does():
    ready = False

    async def answer(request: web.Request) -> web.StreamResponse:
        if not ready:
            return web.Response(status=502)
        socket = await opened(request)
        await socket.send_str("hello")
        await socket.receive()
        return socket

    async with serving(answer) as url:
        connector = ticker(url, reopen_tries=None)
        with anyio.fail_after(20):
            async with connector.open_socket("/ws", must_open=False) as socket:
                assert not socket.is_open
                ready = True
                seen = [await socket.receive()]
                while seen[-1] != "hello":
                    seen.append(await socket.receive())
        await connector.disconnect()
    assert seen[0] is Gap.LOST


async def test_a_peer_that_answers_no_pings_is_dead():
    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request, autoping=False)
        await anyio.sleep_forever()
        return socket

    async with serving(answer) as url:
        connector = ticker(url, ping_interval_s=0.02, ping_timeout_s=0.05)
        async with connector.open_socket("/ws") as socket:
            with anyio.fail_after(20), pytest.raises(ConnectionLost):
                await socket.receive()
        await connector.disconnect()


async def test_leaving_a_socket_whose_peer_does_not_read_is_bounded():
    accepted: list[anyio.abc.SocketStream] = []

    async def deaf(stream: anyio.abc.SocketStream) -> None:
        accepted.append(stream)
        await stream.receive(4096)
        await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, deaf)
        port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
        connector = ticker(f"http://127.0.0.1:{port}")
        with anyio.fail_after(20):
            async with connector.open_socket("/ws") as socket:
                with pytest.raises(ConnectionLost):
                    await socket.send("x" * 16_000_000)
        await connector.disconnect()
        group.cancel_scope.cancel()
    for stream in accepted:
        await stream.aclose()


async def test_an_error_in_the_block_comes_out_as_itself():
    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = await opened(request)
        await socket.receive()
        return socket

    async with serving(answer) as url:
        connector = ticker(url)
        with pytest.raises(LookupError, match="mine"):
            async with connector.open_socket("/ws"):
                raise LookupError("mine")
        with anyio.move_on_after(0.05) as scope:
            async with connector.open_socket("/ws") as socket:
                await socket.receive()
        assert scope.cancelled_caught
        await connector.disconnect()


@pytest.mark.parametrize(
    ("message", "expected"),
    [({"type": "hello"}, MessageType.CONNECTION), ({"type": "other"}, MessageType.UNKNOWN)],
)
def test_a_connector_says_what_its_messages_are_about(message: Mapping[str, str], expected: MessageType):
    assert ticker("http://127.0.0.1:1").classify_message(message) is expected
