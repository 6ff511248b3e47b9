"""The worker's inbox: a blocking read that is always open, on a connection of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import anyio

from emp_core.config import Settings
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY, Limits, connect
from emp_core.queue.consumer import Consumer

__all__ = ["Mailbox"]

log = get_logger("emp.worker")

_READ_AGAIN_S = 0.005


class Mailbox:
    """Reads messages and hands them on.

    Args:
        url: where Redis is.
        on_message: told every message: its first word, and the rest.
        on_return: told when Redis is back after it was away: messages may have been lost.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        consumer: Consumer,
        on_message: Callable[[str, str], None],
        on_return: Callable[[], None],
    ) -> None:
        self._url = url
        self._settings = settings
        # Less than the reply may take: a dead link shows, a quiet one does not.
        self._read = consumer.inbox_read(Limits.of(settings.lease_s).block_s)
        self._on_message = on_message
        self._on_return = on_return

    async def run(self) -> None:
        """Read until cancelled."""
        away = False
        while True:
            client = connect(self._url, self._settings, blocking=True)
            try:
                async with client.wire(self._take) as self._wire:
                    self._wire.send(self._read)
                    if away:
                        away = False
                        self._on_return()
                    await self._wire.ended()
            except AWAY as error:
                away = True
                log.debug("the inbox is not read: redis is away", error=str(error))
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await client.aclose()
            await anyio.sleep(0.2)

    def _take(self, reply: Any) -> None:
        for message in reply[1] if reply else ():
            word, _, rest = message.partition(" ")
            self._on_message(word, rest)
        # What was woken goes first, with Redis and a core for itself: a claim is waited for, the next read is not.
        asyncio.get_running_loop().call_later(_READ_AGAIN_S, self._wire.send, self._read)
