"""Recording outcomes, many in one call. A slot is free as soon as its outcome is handed over here."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import Outcome, Release
from emp_core.log.logger import get_logger
from emp_core.queue.consumer import Consumer, Finish
from emp_core.worker.leases import Held, Leases
from emp_core.worker.persistence import until_done

__all__ = ["Finisher"]

log = get_logger("emp.worker")

_BATCH = 200
_BATCH_LENGTH = 16 * 2**20
"""Characters of results per call, where one alone is not longer: Redis does nothing else while it puts them away."""


class Finisher:
    """Records outcomes in the order in which they were handed over.

    Args:
        on_recorded: told of every outcome that the queue took.
    """

    def __init__(self, consumer: Consumer, leases: Leases, on_recorded: Callable[[Job, Outcome], None]) -> None:
        self._consumer = consumer
        self._leases = leases
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[Held, Outcome, Finish]] = deque()
        self._handed_over = asyncio.Event()
        self._done = asyncio.Event()

    def hand_over(self, held: Held, outcome: Outcome, finish: Finish) -> None:
        """Take an outcome; its lease is renewed until it is recorded."""
        if held.finished:
            return  # given back meanwhile, because stopping it took too long
        held.finished = True
        self._waiting.append((held, outcome, finish))
        self._handed_over.set()

    def release(self, held: Held) -> None:
        """Give a job back that has no outcome; the attempt does not count."""
        job, token = held.claimed.job, held.claimed.token
        self.hand_over(held, Release(), Finish(job.id, token, "release", checkpoint=held.checkpoint))

    async def flushed(self) -> None:
        """Wait until everything that was handed over is recorded."""
        while self._waiting:
            self._done.clear()
            await self._done.wait()

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            if not self._waiting:
                self._done.set()
                self._handed_over.clear()
                await self._handed_over.wait()
            batch = self._batch()
            await self._record(batch)
            for _ in batch:
                self._waiting.popleft()

    def _batch(self) -> list[tuple[Held, Outcome, Finish]]:
        """The next ones, as many as go into one call."""
        batch: list[tuple[Held, Outcome, Finish]] = []
        length = 0
        for one in islice(self._waiting, _BATCH):
            length += len(one[2].result)
            if batch and length > _BATCH_LENGTH:
                break
            batch.append(one)
        return batch

    async def _record(self, batch: list[tuple[Held, Outcome, Finish]]) -> None:
        await self._leases.fresh()
        finishes = [finish for _, _, finish in batch]
        replies = await until_done("recording outcomes", lambda: self._consumer.finish(finishes))
        for (held, outcome, finish), (code, status) in zip(batch, replies, strict=True):
            self._leases.let_go(held)
            if code == -1:
                log.warning("an outcome came too late: its lease was lost", job=finish.job_id, outcome=finish.decision)
                continue
            if finish.decision != "completed":
                log.info("job not completed", job=finish.job_id, outcome=finish.decision, status=status)
            self._on_recorded(held.claimed.job, outcome)
