"""The worker's inbox: a blocking read that is always open, on a connection of its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from emp_core.config import Settings
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY, Limits, connect
from emp_core.queue.consumer import ClaimedJob, Consumer, HandedJob

__all__ = ["Mailbox"]

log = get_logger("emp.worker")


class Mailbox:
    """Reads messages and hands them on.

    Args:
        url: where Redis is.
        on_message: told every message but those that bring jobs: its first word, and the rest.
        on_job: told of a job that was handed to this worker, and how many more may be before it claims again. The job was
            acknowledged before.
        is_late: whether a job that had to be acknowledged until a time of Redis's clock is given to others.
        on_taken_back: told of a job that was given to others after all: its id, and the token of its lease.
        on_return: told when Redis is back after it was away: messages may have been lost.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        consumer: Consumer,
        *,
        on_message: Callable[[str, str], None],
        on_job: Callable[[ClaimedJob, int], None],
        is_late: Callable[[float], bool],
        on_taken_back: Callable[[str, str], None],
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

    async def run(self) -> None:
        """Read until cancelled."""
        away = False
        while True:
            client = connect(self._url, self._settings, blocking=True)
            try:
                async with client.wire(self._take) as self._wire:
                    self._acknowledge_again()
                    self._read_on()
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
            self._answered(self._acknowledged.popleft(), in_time=reply > 0)
            return
        jobs: list[HandedJob] = []
        others: list[tuple[str, str]] = []
        for message in reply[1] if reply else ():
            word, _, rest = message.partition(" ")
            if word == "job":
                jobs.append(self._consumer.handed(rest))
            else:
                others.append((word, rest))
        if jobs:
            self._take_jobs(jobs)
        else:
            # Soon: who is woken claims first, and a claim is waited for.
            asyncio.get_running_loop().call_soon(self._read_on)
        for word, rest in others:
            self._on_message(word, rest)

    def _take_jobs(self, jobs: Sequence[HandedJob]) -> None:
        taken: list[HandedJob] = []
        commands: list[bytes] = []
        for handed in jobs:
            if not self._is_late(handed.until_s):
                taken.append(handed)
                commands.append(handed.acknowledgement)
        # First of all, before it is even read: should a job take this process down, the attempt shall count.
        self._acknowledged += taken
        self._wire.send(*commands, self._read)
        for handed in taken:
            self._on_job(self._consumer.claimed(handed), handed.room)
        if len(taken) < len(jobs):
            log.warning("jobs that were handed to this worker came too late", jobs=len(jobs) - len(taken))
            self._on_message("wake", "")  # it counts as idle again when it has claimed

    def _read_on(self) -> None:
        self._wire.send(self._read)

    def _acknowledge_again(self) -> None:
        """What was on its way when the connection was lost may have arrived: that it comes again tells nothing."""
        self._repeated = len(self._acknowledged)
        for handed in self._acknowledged:
            self._wire.send(handed.acknowledgement)

    def _answered(self, handed: HandedJob, *, in_time: bool) -> None:
        self._wire.expect_reply()  # the one to the read that was sent along
        if self._repeated:
            self._repeated -= 1
        elif not in_time:
            log.warning("a job that was handed to this worker was given to others", job=handed.job_id)
            self._on_taken_back(handed.job_id, handed.token)
            self._on_message("wake", "")  # the queue hands it nothing until it claims
