"""A connection to a service that can be cut, refused, silenced, and answered with garbage."""

import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener
from attrs import define, field, frozen

__all__ = ["GARBAGE", "Garbage", "Link", "endless_answer", "keep_a_port", "link_to"]

_CHUNK = 65_536
_HOST = "127.0.0.1"
_QUIET_S = 0.05
_QUIET_MOST_S = 1.0
_GONE = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@frozen
class Garbage:
    """An answer that is none.

    Attributes:
        name: what it is, for people.
        head: the bytes that it begins with.
        chunk, times: what follows, so many times.
    """

    name: str
    head: bytes = field(repr=False)
    chunk: bytes = field(default=b"", repr=False)
    times: int = 0

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        for _ in range(self.times):
            yield self.chunk


def _answer(body: bytes, media_type: str = "application/json", length: int | None = None) -> bytes:
    told = len(body) if length is None else length
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {told}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


GARBAGE: tuple[Garbage, ...] = (
    Garbage("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    Garbage("a web page", _answer(b"<html><body>Welcome!</body></html>", "text/html")),
    Garbage("half an answer", _answer(b'{"half": ', length=1000)),
    Garbage("broken JSON", _answer(b'{"broken": [1, 2')),
    Garbage("JSON that is no UTF-8", _answer(b'{"text": "\xff\xfe"}')),
    Garbage("JSON nested too deeply", _answer(b"[" * 200_000)),
    Garbage("an empty answer", _answer(b"")),
    Garbage("an empty object", _answer(b"{}")),
    Garbage("a list", _answer(b"[1, 2, 3]")),
    Garbage("a text", _answer(b'"text"')),
    Garbage("a number", _answer(b"7")),
    Garbage("null", _answer(b"null")),
)
"""What services and what stands before them answer when something is wrong, all with status 200."""


def endless_answer(size_bytes: int) -> Garbage:
    """An answer of so many bytes, which does not tell its length beforehand."""
    head = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n["'
    return Garbage("an endless answer", head, b"x" * 2**20, size_bytes // 2**20)


@define(eq=False)
class Link:
    """A TCP proxy on a port of this machine. What it is told holds for open and for new connections.

    Attributes:
        port: where it listens; the port is its own as long as it lives, whether it listens or not.
        most_at_once: the most bytes of one answer that were read, of those that it gave by itself.
    """

    target: tuple[str, int]
    port: int = 0
    most_at_once: int = 0
    _garbage: Garbage | None = None
    _silent: bool = False
    _passing: set["_Passage"] = field(factory=set)
    _holder: socket.socket = field(factory=lambda: keep_a_port())  # noqa: PLW0108 - it stands further down
    _listening: anyio.CancelScope | None = None
    _group: TaskGroup = field(factory=anyio.create_task_group)
    _changed: anyio.Event = field(factory=anyio.Event)
    _passed: anyio.Event = field(factory=anyio.Event)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._passing)

    async def until_connections(self, count: int) -> None:
        """Wait until so many connections are open."""
        while len(self._passing) != count:
            await self._changed.wait()

    async def until_quiet(self) -> None:
        """Wait until nothing has passed for a moment: what was asked is answered. A second at most, for those who poll."""
        with anyio.move_on_after(_QUIET_MOST_S):
            while True:
                self._passed = anyio.Event()
                with anyio.move_on_after(_QUIET_S) as quiet:
                    await self._passed.wait()
                if quiet.cancelled_caught:
                    return

    async def go_down(self) -> None:
        """Cut every connection and refuse new ones, as the system does for a service that has ended."""
        self._stop_listening()
        await self.cut()

    async def come_up(self) -> None:
        """Pass everything on again."""
        self._garbage, self._silent = None, False
        if self._listening is None:
            await self._listen()

    async def cut(self) -> None:
        """Reset every connection that is open, in mid-answer or not."""
        cut = tuple(self._passing)
        for passage in cut:
            passage.reset()
        while not self._passing.isdisjoint(cut):
            await self._changed.wait()

    async def answer_with(self, garbage: Garbage) -> None:
        """Answer in place of the service: at once where a connection is open, then to whatever is asked."""
        self._garbage = garbage
        for passage in tuple(self._passing):
            passage.passing.cancel()

    def fall_silent(self) -> None:
        """Pass nothing on in either direction, and tell nobody: no end, no reset."""
        self._silent = True

    async def _listen(self) -> None:
        listener = await anyio.create_tcp_listener(local_host=_HOST, local_port=self.port, reuse_port=True)
        self._listening = anyio.CancelScope()
        self._group.start_soon(self._accept, listener, self._listening)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _accept(self, listener: MultiListener[SocketStream], scope: anyio.CancelScope) -> None:
        with scope:
            async with listener:
                await listener.serve(self._serve, self._group)

    async def _serve(self, client: SocketStream) -> None:
        passage = _Passage(client)
        self._passing.add(passage)
        self._note_change()
        try:
            async with client:
                with passage.life, suppress(*_GONE):
                    if self._garbage is None:
                        await self._pass_on(passage)
                    else:
                        await client.receive(_CHUNK)
                    if self._garbage is not None:
                        await self._send_garbage(client, self._garbage)
        finally:
            self._passing.discard(passage)
            self._note_change()

    async def _pass_on(self, passage: "_Passage") -> None:
        with passage.passing:
            async with await anyio.connect_tcp(*self.target) as service, anyio.create_task_group() as group:
                group.start_soon(self._pump, passage.client, service, passage)
                group.start_soon(self._pump, service, passage.client, passage)

    async def _pump(self, source: SocketStream, sink: SocketStream, passage: "_Passage") -> None:
        with suppress(*_GONE):
            while True:
                data = await source.receive(_CHUNK)
                if not self._silent:
                    await sink.send(data)
                    self._passed.set()
        if self._silent and source is not passage.client:
            await anyio.sleep_forever()  # what the service does is not told to the client
        passage.passing.cancel()

    async def _send_garbage(self, client: SocketStream, garbage: Garbage) -> None:
        sent = 0
        for data in garbage:
            await client.send(data)
            sent += len(data)
            self.most_at_once = max(self.most_at_once, sent)
        await client.send_eof()
        while True:  # what is still being sent is read, or the answer would be lost with it
            await client.receive(_CHUNK)

    def _note_change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


@define(eq=False)
class _Passage:
    """A connection: as long as ``passing`` goes on, bytes are passed on; ``life`` is all of it."""

    client: SocketStream
    life: anyio.CancelScope = field(factory=anyio.CancelScope)
    passing: anyio.CancelScope = field(factory=anyio.CancelScope)

    def reset(self) -> None:
        with suppress(OSError):  # it ended by itself
            raw = self.client.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.life.cancel()


@asynccontextmanager
async def link_to(url: str) -> AsyncIterator[tuple[Link, str]]:
    """A link to the service at a URL of this machine, and the URL that leads through it."""
    parts = urlsplit(url)
    link = Link((parts.hostname or _HOST, parts.port or 80))
    link.port = link._holder.getsockname()[1]
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    with link._holder:
        async with link._group:
            await link._listen()
            try:
                yield link, urlunsplit(parts._replace(netloc=f"{login}{_HOST}:{link.port}"))
            finally:
                link._group.cancel_scope.cancel()


def keep_a_port() -> socket.socket:
    """A socket that has a port and never listens: nobody else gets the port while it is open, and nobody listens there."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((_HOST, 0))
    return made
