"""The worker's inbox: a blocking read that is always open, on a connection of its own."""

from collections.abc import Callable

import anyio
import structlog

from emp_core.queue.connection import AWAY, SOCKET_TIMEOUT_S, connect
from emp_core.queue.consumer import Consumer

__all__ = ["Mailbox"]

log = structlog.get_logger("emp.worker")

_BLOCK_S = SOCKET_TIMEOUT_S - 1
"""Less than the socket's timeout: a dead link shows, a quiet one does not."""


class Mailbox:
    """Reads messages and hands them on.

    Args:
        url: where Redis is.
        on_message: told every message: its first word, and the rest.
        on_return: told when Redis is back after it was away: messages may have been lost.
    """

    def __init__(
        self, url: str, consumer: Consumer, on_message: Callable[[str, str], None], on_return: Callable[[], None]
    ) -> None:
        self._url = url
        self._consumer = consumer
        self._on_message = on_message
        self._on_return = on_return

    async def run(self) -> None:
        """Read until cancelled."""
        away = False
        while True:
            client = connect(self._url, max_connections=1)
            try:
                while True:
                    messages = await self._consumer.read_inbox(client, _BLOCK_S)
                    if away:
                        away = False
                        self._on_return()
                    for message in messages:
                        word, _, rest = message.partition(" ")
                        self._on_message(word, rest)
            except AWAY as error:
                away = True
                log.debug("the inbox is not read: redis is away", error=str(error))
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await client.aclose()
            await anyio.sleep(0.2)
