"""The worker's inbox: a blocking read that is always open, on a connection of its own."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from emp_core.config import Settings
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY, Limits, connect
from emp_core.queue.consumer import ClaimedJob, Consumer, HandedJob

__all__ = ["Mailbox"]

log = get_logger("emp.worker")

_READ_AGAIN_S = 0.005


class Mailbox:
    """Reads messages and hands them on.

    Args:
        url: where Redis is.
        on_message: told every message but those that bring jobs: its first word, and the rest.
        on_job: told of a job that was handed to this worker. It was acknowledged before.
        is_late: whether a job that had to be acknowledged until a time of Redis's clock is given to others.
        on_taken_back: told of a job that was given to others after all.
        on_return: told when Redis is back after it was away: messages may have been lost.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        consumer: Consumer,
        *,
        on_message: Callable[[str, str], None],
        on_job: Callable[[ClaimedJob], None],
        is_late: Callable[[float], bool],
        on_taken_back: Callable[[ClaimedJob], None],
        on_return: Callable[[], None],
    ) -> None:
        self._url = url
        self._settings = settings
        # Less than the reply may take: a dead link shows, a quiet one does not.
        self._read = consumer.inbox_read(Limits.of(settings.lease_s).block_s)
        self._consumer = consumer
        self._on_message = on_message
        self._on_job = on_job
        self._is_late = is_late
        self._on_taken_back = on_taken_back
        self._on_return = on_return
        self._acknowledged: deque[HandedJob] = deque()
        self._repeated = 0
        self._rests = True

    async def run(self) -> None:
        """Read until cancelled."""
        away = False
        while True:
            client = connect(self._url, self._settings, blocking=True)
            try:
                async with client.wire(self._take) as self._wire:
                    self._acknowledge_again()
                    self._read_again()
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
        if isinstance(reply, int):
            self._answered(self._acknowledged.popleft().claimed, in_time=reply > 0)
            return
        for message in reply[1] if reply else ():
            word, _, rest = message.partition(" ")
            if word == "job":
                self._take_job(self._consumer.handed(rest))
            else:
                self._on_message(word, rest)
        # What was woken goes first, with Redis and a core for itself: a claim is waited for, the next read is not.
        self._rests = True
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_later, _READ_AGAIN_S, self._read_again)

    def _take_job(self, handed: HandedJob) -> None:
        if self._is_late(handed.until_s):
            log.warning("a job that was handed to this worker came too late", job=handed.claimed.job.id)
            self._on_message("wake", "")  # it counts as idle again when it has claimed
            return
        # First of all: should the job take this process down, the attempt shall count.
        self._acknowledged.append(handed)
        self._wire.send(handed.acknowledgement)
        self._on_job(handed.claimed)

    def _acknowledge_again(self) -> None:
        """What was on its way when the connection was lost may have arrived: that it comes again tells nothing."""
        self._repeated = len(self._acknowledged)
        for handed in self._acknowledged:
            self._wire.send(handed.acknowledgement)

    def _answered(self, claimed: ClaimedJob, *, in_time: bool) -> None:
        if self._repeated:
            self._repeated -= 1
        elif not in_time:
            log.warning("a job that was handed to this worker was given to others", job=claimed.job.id)
            self._on_taken_back(claimed)
        if not self._rests:
            self._read_again()

    def _read_again(self) -> None:
        self._rests = False
        if not self._acknowledged:  # a read blocks the connection, and its reply would be taken for theirs
            self._wire.send(self._read)
