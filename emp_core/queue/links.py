"""Links: connections that are held open for calls, one call at a time each; and wires, on which things come when they come.

redis-py makes a connection and secures it; what comes back is read here, as the event loop gets it. redis-py itself leads
every command through a dozen coroutines. A busy process hardly notices that (60 µs of CPU a call instead of 52); one that
slept has to fetch all that code first (250 µs instead of 80), and a job of a quiet queue takes half a dozen calls.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import hiredis
from redis import exceptions

from emp_core.queue.sending import QuickSending, packed

__all__ = ["Links", "Wire"]


class _Taken(asyncio.Protocol):
    """A connection that redis-py has made, and that is read here. It is dropped when a reply is late."""

    def __init__(self, connection: QuickSending, reply_s: float) -> None:
        self._connection = connection
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=connection.refusal, encoding="utf-8", errors="strict"
        )
        self._transport = connection.transport
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self._reply_s = reply_s
        self._due = False
        self._moved_at = 0.0
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    def _write(self, commands: bytes) -> None:
        """Send commands. From then on a reply is due, until `_due` says otherwise."""
        self._transport.write(commands)
        self.expect_reply()

    def expect_reply(self) -> None:
        """A reply is due, to what was sent."""
        self._unsent = self._transport.get_write_buffer_size()
        if not self._due:
            self._due, self._moved_at = True, self._loop.time()
        if self._timer is None:
            # One for many replies: it looks when the first of them would be late.
            self._timer = self._loop.call_at(self._moved_at + self._reply_s, self._look)

    def _look(self) -> None:
        """Whether a reply is late. It is not while the commands are still being sent, or the reply comes in pieces."""
        self._timer = None
        if not self._due:
            return
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        if unsent < before:
            self._unsent, self._moved_at = unsent, self._loop.time()
        if self._loop.time() < self._moved_at + self._reply_s:
            self._timer = self._loop.call_at(self._moved_at + self._reply_s, self._look)
        else:
            self._end(exceptions.TimeoutError("Redis did not answer in time"))

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self._reader.feed(data)
        replies: list[Any] = []
        while True:
            try:
                reply = self._reader.gets()
            except UnicodeDecodeError as error:
                reply = error  # of this one; the next can be read
            except exceptions.InvalidResponse as error:
                self._end(exceptions.ConnectionError(f"what Redis sent cannot be read: {error}"))
                return
            if reply is False:
                break
            replies.append(reply)
        self._take(replies)

    def _take(self, replies: list[Any]) -> None:
        """Replies came, or a piece of one."""
        raise NotImplementedError

    def _end(self, error: Exception) -> None:
        """Nothing more comes."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._end(exceptions.ConnectionError(f"the connection was lost: {exc or 'Redis closed it'}"))
        self._before.connection_lost(None)  # redis-py's own, where somebody may wait for the end

    def drop(self) -> None:
        """Close it now, whatever is on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.abandon()


class _Link(_Taken):
    """Carries one call at a time."""

    def __init__(self, connection: QuickSending, reply_s: float) -> None:
        super().__init__(connection, reply_s)
        self._call: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._wanted = 0

    @property
    def usable(self) -> bool:
        """Whether another call can be made on it."""
        return self._call is None and not self._transport.is_closing()

    async def ask(self, commands: bytes, count: int, patience_s: float) -> list[Any]:
        """Send commands, and give their replies."""
        self._replies, self._wanted = [], count
        self._call = self._loop.create_future()
        self._write(commands)
        try:
            return await self._call
        except asyncio.CancelledError:
            # Only what anyio cancels is told again at the next chance; the cancellation of a bare task would be lost.
            if patience_s > 0 and anyio.current_effective_deadline() == -math.inf:
                with anyio.move_on_after(patience_s, shield=True):
                    return await self._after_all()
            raise

    async def _after_all(self) -> list[Any]:
        if self._call is not None:
            self._call = self._loop.create_future()
            return await self._call
        if len(self._replies) < self._wanted:
            raise exceptions.ConnectionError("the connection was lost")
        return self._replies

    def _take(self, replies: list[Any]) -> None:
        self._replies += replies
        if self._call is None or len(self._replies) > self._wanted:
            self._end(exceptions.ConnectionError("Redis sent more than was asked for"))
        elif len(self._replies) < self._wanted:
            self._moved_at = self._loop.time()
        else:
            call, self._call, self._due = self._call, None, False
            if not call.done():
                call.set_result(self._replies)

    def _end(self, error: Exception) -> None:
        call, self._call, self._due = self._call, None, False
        if call is not None and not call.done():
            call.set_exception(error)
        self.drop()


class Wire(_Taken):
    """Tells what comes, when it comes: what is published, and replies to blocking reads.

    It speaks RESP3, where commands may be sent on a connection that is subscribed.

    Args:
        on_reply: told everything that Redis sends, in order: pushes (``["message", channel, text]``,
            ``["subscribe", channel, count]``) and replies.
        on_refusal: told when Redis refuses a command; the wire ends unless it gives True.
    """

    def __init__(
        self,
        connection: QuickSending,
        reply_s: float,
        on_reply: Callable[[Any], None],
        on_refusal: Callable[[exceptions.RedisError], bool],
    ) -> None:
        super().__init__(connection, reply_s)
        self._on_reply = on_reply
        self._on_refusal = on_refusal
        self._over = asyncio.Event()
        self._error: Exception = exceptions.ConnectionError("it was closed")
        self._greeted = self._sent = False
        self._write(packed("HELLO", 3))

    def send(self, *commands: bytes) -> None:
        """Send commands that were packed; what comes of them is told."""
        if not self._transport.is_closing():
            self._write(b"".join(commands))
            self._sent = True

    @property
    def silent_s(self) -> float:
        """For how long nothing was sent or heard."""
        return self._loop.time() - self._moved_at

    async def ended(self) -> NoReturn:
        """Wait until nothing more comes.

        Raises:
            redis.exceptions.ConnectionError, TimeoutError: the connection was lost, or a reply did not come in time.
            redis.exceptions.ResponseError: Redis refused a command.
        """
        await self._over.wait()
        raise self._error

    def _take(self, replies: list[Any]) -> None:
        self._moved_at = self._loop.time()
        # The greeting's reply is not the one of what was sent along with it.
        greeting = not self._greeted and len(replies) == 1
        self._due = self._due and (not replies or (greeting and self._sent))
        for reply in replies:
            if isinstance(reply, exceptions.RedisError):
                if not self._greeted or not self._on_refusal(reply):
                    self._end(reply)
                    return
            elif isinstance(reply, Exception):
                self._end(exceptions.ConnectionError(f"what Redis sent cannot be read: {reply}"))
                return
            elif self._greeted:
                self._on_reply(reply)
            self._greeted = True

    def _end(self, error: Exception) -> None:
        if not self._over.is_set():
            self._error = error
            self._over.set()
        self.drop()


class Links:
    """As many connections as there are calls at the same time, up to a number.

    Args:
        make: makes a connection; nothing is sent yet.
        reply_s: how long Redis may be silent while a reply is due.
        most: calls beyond so many wait for others to end.

    Attributes:
        closed: whether `close` was called: no call can be made any more.
    """

    def __init__(self, make: Callable[[], QuickSending], reply_s: float, most: int) -> None:
        self._make = make
        self._reply_s = reply_s
        self._room = anyio.Semaphore(most)
        self._kept: set[_Link] = set()
        self._idle: list[_Link] = []
        self.closed = False

    async def ask(self, commands: bytes, count: int, patience_s: float = 0.0) -> list[Any]:
        """Send commands, and give their replies; refusals are among them, as exceptions.

        A call that is cancelled on its way takes its connection with it, so that no reply is taken for another's.

        Args:
            patience_s: how long a call that is cancelled on its way may take to come back after all: for what would be
                lost with its reply.

        Raises:
            redis.exceptions.ConnectionError, TimeoutError: Redis is away; the commands may have been carried out.
        """
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            await self._room.acquire()
        try:
            link = await self._open()
            try:
                return await link.ask(commands, count, patience_s)
            except exceptions.TimeoutError:
                self.forget()  # the others lead to where nobody answers, too
                raise
            finally:
                if link.usable and link in self._kept:
                    self._idle.append(link)
                else:
                    self._kept.discard(link)
                    link.drop()
        finally:
            self._room.release()

    async def _open(self) -> _Link:
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
            self._kept.discard(link)  # Redis has closed it meanwhile
        link = _Link(await self._connected(), self._reply_s)
        self._kept.add(link)
        return link

    async def _connected(self) -> QuickSending:
        self._refuse_if_closed()
        connection = self._make()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates no results
            self._refuse_if_closed()  # meanwhile
        except BaseException:
            connection.abandon()
            raise
        return connection

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise exceptions.ConnectionError("the client is closed")

    async def wire(self, on_reply: Callable[[Any], None], on_refusal: Callable[[exceptions.RedisError], bool]) -> Wire:
        """A connection of its own, on which things come when they come. Whoever asked for it drops it."""
        return Wire(await self._connected(), self._reply_s, on_reply, on_refusal)

    def forget(self) -> None:
        """Use none of these connections for calls to come."""
        for link in self._idle:
            link.drop()
        self._idle.clear()
        self._kept.clear()

    def close(self) -> None:
        """Close all of them, for good."""
        self.closed = True
        for link in self._kept:
            link.drop()
        self._idle.clear()
        self._kept.clear()
