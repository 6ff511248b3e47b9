"""One subscribed connection for all who wait. What it hears is a hint: the truth is read from the job."""

import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from redis.asyncio import Redis

from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY

__all__ = ["LOST", "Listener"]

log = get_logger("emp.redis")

LOST = ""
"""Heard instead of a message when the connection was lost: read the truth again."""


class Listener:
    """Keeps a subscription alive, across lost connections, for any number of channels and listeners.

    Args:
        connect: makes a client.
        reply_s: how long Redis may take to answer; a connection that is silent for longer is dead.
        channel: the one that is subscribed to while nobody listens to any.
    """

    def __init__(self, connect: Callable[[], Redis], reply_s: float, channel: str) -> None:
        self._connect = connect
        self._reply_s = reply_s
        self._channel = channel
        self._heard: dict[str, set[MemoryObjectSendStream[str]]] = defaultdict(set)
        self._confirmed: dict[str, anyio.Event] = {}
        self._pubsub: Any = None

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is made anew, and everybody is told."""
        delay_s = 0.05
        while True:
            client = self._connect()
            pubsub: Any = client.pubsub()
            try:
                known = list(self._heard)
                await pubsub.subscribe(self._channel, *known)
                self._pubsub = pubsub
                # Whoever came in between found no connection to ask for it.
                if late := [channel for channel in self._heard if channel not in known]:
                    await pubsub.subscribe(*late)
                delay_s = 0.05
                self._tell_all(LOST)
                await self._read(pubsub)
            except AWAY as error:
                log.debug("subscription lost", error=str(error))
            finally:
                self._pubsub = None
                self._confirmed = {channel: anyio.Event() for channel in self._heard}
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await pubsub.aclose()
                    await client.aclose()
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)

    async def _read(self, pubsub: Any) -> None:
        last_heard = time.monotonic()
        while True:
            message = await pubsub.get_message(timeout=self._reply_s / 2)
            now = time.monotonic()
            if message is None:
                if now - last_heard > self._reply_s * 1.5:
                    raise ConnectionError("the subscribed connection went silent")
                await pubsub.ping()
                continue
            last_heard = now
            match message["type"]:
                case "subscribe" if message["channel"] in self._confirmed:
                    self._confirmed[message["channel"]].set()
                case "message":
                    self._tell(message["channel"], message["data"])

    def _tell(self, channel: str, text: str) -> None:
        for listener in self._heard.get(channel, ()):
            listener.send_nowait(text)

    def _tell_all(self, text: str) -> None:
        for channel in self._heard:
            self._tell(channel, text)

    @asynccontextmanager
    async def subscribed(self, channel: str) -> AsyncIterator[MemoryObjectReceiveStream[str]]:
        """What is published on ``channel``, from when the block is entered; `LOST` where something may be missing."""
        # Unbounded: one job's events are few, and a slow reader must not hold up the others.
        send, receive = anyio.create_memory_object_stream[str](math.inf)
        first = channel not in self._heard
        self._heard[channel].add(send)
        if first:
            self._confirmed[channel] = anyio.Event()
            await self._ask("subscribe", channel)
        try:
            # Not there yet while Redis is away: then LOST comes as soon as it is back.
            with anyio.move_on_after(self._reply_s):
                await self._confirmed[channel].wait()
            yield receive
        finally:
            self._heard[channel].discard(send)
            send.close()
            receive.close()
            if not self._heard[channel]:
                del self._heard[channel]
                self._confirmed.pop(channel, None)
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await self._ask("unsubscribe", channel)

    async def _ask(self, what: str, channel: str) -> None:
        pubsub = self._pubsub
        if pubsub is None:
            return  # run() subscribes to everything when it is connected
        try:
            await getattr(pubsub, what)(channel)
        except (
            *AWAY,
            AttributeError,
        ) as error:  # redis-py's connection loses its writer when run() closes it meanwhile
            log.debug("subscription lost", error=str(error))
