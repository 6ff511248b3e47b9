"""Calling Redis from programs that look after jobs: every call may be repeated, and is while Redis is away."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio

from emp_core.config import Settings
from emp_core.log.logger import get_logger
from emp_core.queue.addresses import shown_url
from emp_core.queue.connection import AWAY, Limits, unavailable
from emp_core.queue.keys import Keys
from emp_core.queue.scripts import load_script

__all__ = ["Calls", "keeping"]

T = TypeVar("T")

log = get_logger("emp.queue")

_RETRY_S = 10.0


def keeping(settings: Settings) -> dict[str, int]:
    """What the scripts are told about retention, by the names that they have for it."""
    return {
        "events_max": settings.events_max,
        "keep_completed_ms": round(settings.keep_completed_s * 1000),
        "keep_failed_ms": round(settings.keep_failed_s * 1000),
        "keep_cancelled_ms": round(settings.keep_cancelled_s * 1000),
    }


class Calls:
    """Scripts and commands on one client, repeated for up to 10 s while Redis is away.

    Attributes:
        client: redis-py's. Any: its own annotations leave open whether replies are text or bytes.
        copies_ms: how long replicas get to say that they have what was written.
        block_ms: how long a read may wait for something to come: less than a reply may take.
    """

    def __init__(self, client: Any, url: str, settings: Settings) -> None:
        self.client = client
        self.keys = Keys(settings.namespace)
        self._url = url
        limits = Limits.of(settings.lease_s)
        self.copies_ms = limits.copies_ms
        self.block_ms = round(limits.reply_s * 1000 / 2)

    async def run(self, script: str, arguments: Mapping[str, Any], rest: Sequence[Any] = ()) -> Any:
        """Run a script that may be repeated.

        Raises:
            QueueUnavailable: Redis stayed away.
        """
        bound = load_script(script).bound(self.keys)
        return await self.repeated(lambda: bound(self.client, arguments, rest))

    async def repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be repeated.

        Raises:
            QueueUnavailable: Redis stayed away, or the client was closed.
        """
        ends: float | None = None
        delay_s = 0.05
        while True:
            try:
                return await call()
            except AWAY as error:
                ends = ends or anyio.current_time() + _RETRY_S
                if self.client.is_closed or anyio.current_time() + delay_s > ends:
                    raise unavailable(self._url, error) from error
                log.warning("redis is away", url=shown_url(self._url), error=str(error), again_in_s=delay_s)
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)
