"""One subscribed connection for all who wait. What it hears is a hint: the truth is read from the job."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from attrs import define, field

from emp_core.log.logger import get_logger
from emp_core.queue.client import Client
from emp_core.queue.connection import AWAY
from emp_core.queue.links import Subscription

__all__ = ["LOST", "Heard", "Listener"]

log = get_logger("emp.redis")

LOST = ""
"""Heard instead of a message when the connection was lost: read the truth again."""
_LEFT_MOST = 50
"""Channels that nobody listens to any more are unsubscribed from together."""


class Heard:
    """What came on a channel and was not read yet."""

    def __init__(self) -> None:
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
    """Who listens to a channel.

    Attributes:
        confirmed: set once Redis has said that it is subscribed to, or the connection was lost before that.
        missed: whether something may have been published before that and not been heard.
    """

    listeners: set[Heard] = field(factory=set)
    confirmed: asyncio.Event = field(factory=asyncio.Event)
    missed: bool = False

    def tell(self, text: str) -> None:
        """Tell everybody who listens."""
        for listener in self.listeners:
            listener.put(text)


class Listener:
    """Keeps a subscription alive, across lost connections, for any number of channels and listeners.

    Args:
        connect: makes a client.
        reply_s: how long Redis may take to answer; a connection that is silent for longer is dead.
    """

    def __init__(self, connect: Callable[[], Client], reply_s: float) -> None:
        self._connect = connect
        self._reply_s = reply_s
        self._channels: dict[str, _Channel] = {}
        self._left: dict[str, None] = {}
        self._subscription: Subscription | None = None
        self._heard_any = False

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is made anew, and everybody is told."""
        delay_s = 0.05
        while True:
            client = self._connect()
            try:
                subscription = await client.subscription(self._hear)
                try:
                    self._begin(subscription)
                    delay_s = 0.05
                    await self._watch(subscription)
                finally:
                    self._end()
                    subscription.drop()
            except AWAY as error:
                log.debug("subscription lost", error=str(error))
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await client.aclose()
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)

    def _begin(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._forget_left()
        for channel in self._channels.values():
            channel.missed = True
        if self._channels:
            subscription.send("SUBSCRIBE", *self._channels)

    def _end(self) -> None:
        self._subscription = None
        for channel in self._channels.values():
            channel.confirmed.set()  # nobody shall wait for what does not come
            channel.confirmed = asyncio.Event()

    async def _watch(self, subscription: Subscription) -> None:
        """Wait for the end of a connection: it is lost, or it says nothing when it is asked."""
        silent_s = 0.0
        while True:
            self._heard_any = False
            with anyio.move_on_after(self._reply_s / 2):
                await subscription.ended()
            silent_s = 0.0 if self._heard_any else silent_s + self._reply_s / 2
            if silent_s > self._reply_s:
                raise ConnectionError("the subscribed connection went silent")
            self._unsubscribe(subscription)
            if silent_s > 0:
                subscription.send("PING")

    def _hear(self, reply: Any) -> None:
        self._heard_any = True
        match reply:
            case ["message", str(name), str(text)] if name in self._channels:
                self._channels[name].tell(text)
            case ["subscribe", str(name), _] if name in self._channels:
                channel = self._channels[name]
                channel.confirmed.set()
                if channel.missed:
                    channel.missed = False
                    channel.tell(LOST)

    @asynccontextmanager
    async def subscribed(self, name: str) -> AsyncIterator[Heard]:
        """What is published on a channel, from when the block is entered; `LOST` where something may be missing."""
        heard = Heard()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
            if self._subscription is not None:
                self._subscription.send("SUBSCRIBE", name)
        channel.listeners.add(heard)
        self._left.pop(name, None)
        try:
            # Not there yet while Redis is away: then LOST comes as soon as it is back.
            if self._subscription is not None and not channel.confirmed.is_set():
                await channel.confirmed.wait()
            yield heard
        finally:
            channel.listeners.discard(heard)
            if not channel.listeners:
                self._left[name] = None
                if self._subscription is not None and len(self._left) >= _LEFT_MOST:
                    self._unsubscribe(self._subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        # What is not confirmed yet stays: its confirmation would be taken for that of whoever asks for it next.
        left = [name for name in self._left if self._channels[name].confirmed.is_set()]
        for name in left:
            del self._left[name], self._channels[name]
        if left:
            subscription.send("UNSUBSCRIBE", *left)

    def _forget_left(self) -> None:
        for name in self._left:
            del self._channels[name]
        self._left.clear()
