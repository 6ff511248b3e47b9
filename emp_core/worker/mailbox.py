"""The worker's inbox: a blocking read that is always open, on a connection of its own."""

from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from emp_core.config import Settings
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY, Limits, connect
from emp_core.queue.consumer import Consumer

__all__ = ["Mailbox"]

log = get_logger("emp.worker")


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
        self._connect: Callable[[], Any] = lambda: connect(url, settings, blocking=True, max_connections=1)
        # Less than the reply may take: a dead link shows, a quiet one does not.
        self._block_s = Limits.of(settings.lease_s).block_s
        self._consumer = consumer
        self._on_message = on_message
        self._on_return = on_return

    async def run(self) -> None:
        """Read until cancelled."""
        away = False
        while True:
            client = self._connect()
            try:
                while True:
                    messages = await self._consumer.read_inbox(client, self._block_s)
                    if away:
                        away = False
                        self._on_return()
                    for message in messages:
                        word, _, rest = message.partition(" ")
                        self._on_message(word, rest)
                    await checkpoint()  # what was woken goes first: a claim is waited for, the next read is not
            except AWAY as error:
                away = True
                log.debug("the inbox is not read: redis is away", error=str(error))
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await client.aclose()
            await anyio.sleep(0.2)
