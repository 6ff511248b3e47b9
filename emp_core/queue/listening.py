"""One subscribed connection for all who wait. What it hears is a hint: the truth is read from the job."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from attrs import define, field
from redis import exceptions

from emp_core.log.logger import get_logger
from emp_core.queue.client import Client
from emp_core.queue.connection import AWAY
from emp_core.queue.links import Wire
from emp_core.queue.sending import packed

__all__ = ["LOST", "Heard", "Listener"]

log = get_logger("emp.redis")

LOST = ""
"""Heard instead of a message when the connection was lost: read the truth again."""
_LEFT_MOST = 50
"""Channels that nobody listens to any more are unsubscribed from together."""
_REFUSED_S = 0.5
_PING = packed("PING")


class Heard:
    """What came on a channel and was not read yet.

    Attributes:
        answer: what Redis answered to the question that was asked once the channel was subscribed to; None while Redis is
            away.
    """

    def __init__(self) -> None:
        self.answer: str | None = None
        # Unbounded: one job's events are few, and a slow reader must not hold up the others.
        self._texts: deque[str] = deque()
        self._came = asyncio.Event()

    def put(self, text: str) -> None:
        """Something came."""
        self._texts.append(text)
        self._came.set()

    async def next(self, limit_s: float) -> str | None:
        """The next text; None when none came in time."""
        if not self._texts:
            self._came.clear()
            # Not a scope with a deadline: that would take longer than all else between a message and who waits for it.
            timer = asyncio.get_running_loop().call_later(limit_s, self._came.set)
            try:
                await self._came.wait()
            finally:
                timer.cancel()
        return self._texts.popleft() if self._texts else None


@define
class _Channel:
    """Who listens to a channel. ``missed``: whether something may have been published and not been heard."""

    listeners: set[Heard] = field(factory=set)
    missed: bool = False

    def tell(self, text: str) -> None:
        """Tell everybody who listens."""
        for listener in self.listeners:
            listener.put(text)


class Listener:
    """Keeps a subscription alive, across lost connections, for any number of channels and listeners.

    Args:
        connect: makes a client.
        ping_s: a connection that was silent for so long is asked whether it lives.
    """

    def __init__(self, connect: Callable[[], Client], ping_s: float) -> None:
        self._connect = connect
        self._ping_s = ping_s
        self._channels: dict[str, _Channel] = {}
        self._left: dict[str, None] = {}
        self._wire: Wire | None = None
        self._asked: deque[asyncio.Future[Any]] = deque()

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is made anew, and everybody is told."""
        delay_s = 0.05
        while True:
            client = self._connect()
            try:
                async with client.wire(self._hear) as wire:
                    self._begin(wire)
                    delay_s = 0.05
                    try:
                        await self._watch(wire)
                    finally:
                        self._end()
            except AWAY as error:
                log.debug("subscription lost", error=str(error))
            except exceptions.ResponseError as error:
                # One question, or one channel, that Redis refuses is not to end what everybody listens to.
                log.warning("redis refuses what was asked along with a subscription", error=str(error))
                delay_s = _REFUSED_S
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await client.aclose()
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)

    def _begin(self, wire: Wire) -> None:
        self._wire = wire
        for name in self._left:
            del self._channels[name]
        self._left.clear()
        for channel in self._channels.values():
            channel.missed = True
        if self._channels:
            wire.send(packed("SUBSCRIBE", *self._channels))

    def _end(self) -> None:
        self._wire = None
        while self._asked:
            _settle(self._asked.popleft(), None)  # nobody shall wait for what does not come

    async def _watch(self, wire: Wire) -> None:
        """Wait for the end of a connection, and ask it now and then whether it lives: it ends when it does not answer."""
        while True:
            with anyio.move_on_after(self._ping_s):
                await wire.ended()
            self._unsubscribe(wire)
            if wire.silent_s >= self._ping_s:
                self._ask(wire, _PING)

    def _ask(self, wire: Wire, *commands: bytes) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        wire.send(*commands)
        return answer

    def _hear(self, reply: Any) -> None:
        match reply:
            case ["message", str(name), str(text)]:
                if name in self._channels:
                    self._channels[name].tell(text)
            case ["subscribe", str(name), _]:
                if name in self._channels and (channel := self._channels[name]).missed:
                    channel.missed = False
                    channel.tell(LOST)
            case ["unsubscribe", *_]:
                pass
            case answer:
                _settle(self._asked.popleft(), answer)

    @asynccontextmanager
    async def subscribed(self, name: str, *question: str) -> AsyncIterator[Heard]:
        """What is published on a channel, from when the block is entered; `LOST` where something may be missing.

        Args:
            question: a command whose reply is one text, to be asked once the channel is subscribed to. It goes along, so
                that the state before and what changes it are known after one round trip.
        """
        heard = Heard()
        channel = self._channels.get(name)
        subscribe = b""
        if channel is None:
            channel = self._channels[name] = _Channel()
            subscribe = packed("SUBSCRIBE", name)
        channel.listeners.add(heard)
        self._left.pop(name, None)
        try:
            # While Redis is away nothing is asked: LOST comes as soon as it is back.
            if self._wire is not None:
                heard.answer = await self._ask(self._wire, subscribe, packed(*question) if question else _PING)
            yield heard
        finally:
            channel.listeners.discard(heard)
            if not channel.listeners:
                self._left[name] = None
                if self._wire is not None and len(self._left) >= _LEFT_MOST:
                    self._unsubscribe(self._wire)

    def _unsubscribe(self, wire: Wire) -> None:
        for name in self._left:
            del self._channels[name]
        if self._left:
            wire.send(packed("UNSUBSCRIBE", *self._left))
            self._left.clear()


def _settle(answer: "asyncio.Future[Any]", reply: Any) -> None:
    if not answer.done():  # whoever asked was cancelled
        answer.set_result(reply)
