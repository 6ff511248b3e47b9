"""One subscribed connection for all who wait. What it hears may be lost: then the truth is read from the job."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Self

import anyio
from attrs import define, field
from redis import exceptions

from emp_core.log.logger import get_logger
from emp_core.queue.client import Client
from emp_core.queue.connection import AWAY
from emp_core.queue.links import Wire
from emp_core.queue.sending import PackedHead, packed

__all__ = ["LOST", "Heard", "Listener", "Subscription"]

log = get_logger("emp.redis")

LOST = ""
"""Heard instead of a message when the connection was lost: read the truth again."""
_LEFT_MOST = 50
"""Channels that nobody listens to any more are unsubscribed from together."""
_REFUSED_S = 0.5
_OF_THE_CALL = (exceptions.NoScriptError, exceptions.OutOfMemoryError)
"""Refusals of a call that say nothing against the connection."""
_PING = packed("PING")
_SUBSCRIBE = PackedHead("SUBSCRIBE")


class Hearing(Protocol):
    """Whoever is told what comes on a channel."""

    def put(self, text: str) -> None:
        """Something came, or may be missing (`LOST`)."""


class Heard:
    """What came and was not read yet.

    Attributes:
        heard_at: when the last text came, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.heard_at = math.inf
        # Unbounded: one job's events are few, and a slow reader must not hold up the others.
        self._texts: deque[str] = deque()
        self._came: asyncio.Future[None] | None = None

    def put(self, text: str) -> None:
        """Something came."""
        self._texts.append(text)
        self.heard_at = time.monotonic()
        self._wake()

    async def next(self, limit_s: float) -> str | None:
        """The next text; None when none came in time."""
        await self._something(limit_s)
        return self._texts.popleft() if self._texts else None

    async def last(self, limit_s: float) -> str | None:
        """The last of the texts that came, which stands for all before it; None when none came in time."""
        await self._something(limit_s)
        if not self._texts:
            return None
        text = self._texts.pop()
        self._texts.clear()
        return text

    async def _something(self, limit_s: float) -> None:
        if self._texts:
            return
        loop = asyncio.get_running_loop()
        self._came = loop.create_future()
        # Not a scope with a deadline: that would take longer than all else between a message and who waits for it.
        timer = loop.call_later(limit_s, self._wake)
        try:
            await self._came
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)


class Subscription(Heard):
    """A channel that is listened to while the block lasts."""

    def __init__(self, listener: "Listener", name: str) -> None:
        super().__init__()
        self._listener = listener
        self._name = name

    def __enter__(self) -> Self:
        self._listener.join(self._name, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.leave(self._name, self)

    def subscribed(self, *questions: bytes) -> Awaitable[list[Any]]:
        """Wait until Redis has subscribed to the channel.

        Args:
            questions: commands that were packed (`packed`). They go along, so that the state before and what changes it
                are known after one round trip.

        Returns:
            Redis's answers, as RESP3 has them; no answers while Redis is away: LOST comes as soon as it is back.
        """
        return self._listener.ask(self._name, questions)


class _Asked:
    """Questions that were sent along with a subscription.

    Args:
        after: the channel of the subscription where a refusal of the question itself is an answer, too.
    """

    def __init__(self, count: int, after: str | None = None) -> None:
        self.count = count
        self.after = after
        self.answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Nothing more is answered."""
        if not self.done.done():  # whoever asked was cancelled
            self.done.set_result(self.answers if len(self.answers) == self.count else [])


@define
class _Channel:
    """Who listens to a channel.

    Attributes:
        live: whether Redis said that it is subscribed to.
        missed: whether something may have been published and not been heard.
    """

    listeners: set[Hearing] = field(factory=set)
    live: bool = False
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
        self._asked: deque[_Asked] = deque()

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is made anew, and everybody is told."""
        delay_s = 0.05
        while True:
            client = self._connect()
            try:
                async with client.wire(self._hear, self._refused) as wire:
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
            channel.live, channel.missed = False, True
        if self._channels:
            wire.send(packed("SUBSCRIBE", *self._channels))

    def _end(self) -> None:
        self._wire = None
        while self._asked:
            self._asked.popleft().end()  # nobody shall wait for what does not come

    async def _watch(self, wire: Wire) -> None:
        """Wait for the end of a connection, and ask it now and then whether it lives: it ends when it does not answer."""
        while True:
            with anyio.move_on_after(self._ping_s):
                await wire.ended()
            self._unsubscribe(wire)
            if wire.silent_s >= self._ping_s:
                self._send(wire, _PING, 1)

    def _send(self, wire: Wire, commands: bytes, count: int, after: str | None = None) -> _Asked:
        asked = _Asked(count, after)
        self._asked.append(asked)
        wire.send(commands)
        return asked

    def _hear(self, reply: Any) -> None:
        match reply:
            case ["message", str(name), str(text)]:
                if name in self._channels:
                    self._channels[name].tell(text)
            case ["subscribe", str(name), _]:
                if name in self._channels:
                    channel = self._channels[name]
                    channel.live = True
                    if channel.missed:
                        channel.missed = False
                        channel.tell(LOST)
            case ["unsubscribe", *_]:
                pass
            case answer:
                self._answered(answer)

    def _answered(self, answer: Any) -> None:
        asked = self._asked[0]
        asked.answers.append(answer)
        if len(asked.answers) == asked.count:
            self._asked.popleft().end()

    def _refused(self, error: exceptions.RedisError) -> bool:
        if not isinstance(error, exceptions.ResponseError) or not self._asked:
            return False
        after = self._asked[0].after
        if after is None:
            return False
        of_the_call = isinstance(error, _OF_THE_CALL)
        # Of others the subscription may be the reason, until Redis has said that it is subscribed.
        if of_the_call or self.hears(after):
            self._answered(error)
        # What says that the server is not the right one any more ends the connection all the same.
        return of_the_call

    def hears(self, name: str) -> bool:
        """Whether what is published on a channel now is heard."""
        return self._wire is not None and name in self._channels and self._channels[name].live

    def subscribed(self, name: str) -> Subscription:
        """What is published on a channel, from when `Subscription.subscribed` answers; `LOST` where something may be missing."""
        return Subscription(self, name)

    def join(self, name: str, hearing: Hearing) -> None:
        """Somebody listens to a channel."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        channel.listeners.add(hearing)
        self._left.pop(name, None)

    async def ask(self, name: str, questions: Sequence[bytes], *, refusable: bool = False) -> list[Any]:
        """Subscribe to a channel that somebody listens to; see `Subscription.subscribed`.

        Args:
            refusable: whether a refusal of the question is given as its answer. Otherwise it ends the connection.
        """
        if self._wire is None:
            return []
        commands = b"".join(questions) or _PING
        if not self.hears(name):
            commands = _SUBSCRIBE.packed(name) + commands
        return await self._send(self._wire, commands, len(questions) or 1, name if refusable else None).done

    def leave(self, name: str, hearing: Hearing) -> None:
        """They do not any more."""
        channel = self._channels[name]
        channel.listeners.discard(hearing)
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
