"""The leases that this worker holds: renewed in one call, with the progress of their jobs."""

import time
from collections.abc import Callable

import anyio
from attrs import define

from emp_core.jobs.codec import sendable, told
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY
from emp_core.queue.consumer import ClaimedJob, Consumer, Lease, Renewal
from emp_core.worker.gpus import GpuUse
from emp_core.worker.persistence import until_done

__all__ = ["Held", "Leases"]

log = get_logger("emp.leases")

_PROGRESS_EVERY_S = 0.5
_MESSAGE_MAX = 500


@define(eq=False)
class Held:
    """A job that this worker holds, from claim to recorded outcome.

    Attributes:
        scope: cancels the attempt; None before it begins and after it ended.
        stopped: why the attempt was stopped from outside: ``cancelled``, ``lost``, ``drained``; empty if it was not.
        finished: whether it has an outcome, recorded or about to be.
        gpu: what was seen of the GPU meanwhile, once somebody looked.
        checkpoint: the service's id of the run, as it was told last; ``service_job_id`` while it is to be sent yet.
    """

    claimed: ClaimedJob
    scope: anyio.CancelScope | None = None
    stopped: str = ""
    finished: bool = False
    gpu: GpuUse | None = None
    progress: float | None = None
    message: str = ""
    checkpoint: str = ""
    service_job_id: str = ""
    text: str = ""
    text_at: int = 0

    def stop(self, why: str) -> None:
        """Stop the attempt; the first reason counts."""
        self.stopped = self.stopped or why
        if self.scope is not None:
            self.scope.cancel()

    def gpu_use(self) -> GpuUse:
        """What to note of the GPU while it runs."""
        self.gpu = self.gpu or GpuUse()
        return self.gpu

    def take_changes(self) -> Lease:
        """The lease with what changed since it was last taken."""
        job, token = self.claimed.job, self.claimed.token
        lease = Lease(
            job.id, token, self.progress, self.message, self.service_job_id, text=self.text, text_at=self.text_at
        )
        self.progress, self.message, self.service_job_id = None, "", ""
        if self.text:
            self.text_at += len(self.text.encode())
            self.text = ""
        return lease

    def put_back(self, lease: Lease) -> None:
        """Keep changes that did not arrive, unless there are newer ones."""
        if self.progress is None:
            self.progress, self.message = lease.progress, lease.message
        self.service_job_id = self.service_job_id or lease.service_job_id
        if lease.text:
            self.text, self.text_at = lease.text + self.text, lease.text_at


class Leases:
    """Keeps the worker's heartbeat and its leases.

    Args:
        on_renewal: told what every heartbeat gave.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        consumer: Consumer,
        lease_s: float,
        *,
        on_renewal: Callable[[Renewal], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._lease_s = lease_s
        self._on_renewal = on_renewal
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._changed = anyio.Event()
        self._renewed = anyio.Event()
        self._emptied = anyio.Event()
        self._renewed_at = clock()
        self._looked_at: float | None = None
        self._ahead_s: float | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, claimed: ClaimedJob) -> Held:
        """Take a lease into care. One of the same job that is there is lost by that: the queue gave the job away in between."""
        if (before := self._held.get(claimed.job.id)) is not None:
            before.stop("lost")
        held = Held(claimed)
        self._held[claimed.job.id] = held
        return held

    def let_go(self, held: Held) -> None:
        """The outcome is recorded, or the lease is lost."""
        if self._held.get(held.claimed.job.id) is held:
            del self._held[held.claimed.job.id]
        if not self._held:
            self._emptied.set()

    async def empty(self) -> None:
        """Wait until nothing is held."""
        while self._held:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def running(self) -> list[Held]:
        """What is being worked on now."""
        return [held for held in self._held.values() if held.scope is not None]

    def unfinished(self) -> list[Held]:
        """What is held and has no outcome yet."""
        return [held for held in self._held.values() if not held.finished]

    def holds(self, job_id: str, token: str) -> bool:
        """Whether this very lease is in care: a repeated claim names it again."""
        held = self._held.get(job_id)
        return held is not None and held.claimed.token == token

    def find(self, job_id: str) -> Held | None:
        """The job, if this worker holds it."""
        return self._held.get(job_id)

    def stop_all(self, why: str) -> None:
        """Stop every attempt."""
        for held in tuple(self._held.values()):
            held.stop(why)

    def report(self, held: Held, percent: float, message: str | None) -> None:
        """Take note of progress; it is sent on at most twice a second."""
        held.progress = percent
        if message is not None:
            held.message = told(message, _MESSAGE_MAX)
        self._changed.set()

    def put_out(self, held: Held, text: str) -> None:
        """Take note of text that the job puts out; it is sent on at most twice a second."""
        held.text += sendable(text)
        self._changed.set()

    def checkpoint(self, held: Held, service_job_id: str) -> None:
        """Take note of the service's id of the run."""
        held.checkpoint = held.service_job_id = sendable(service_job_id, _MESSAGE_MAX)
        self._changed.set()

    async def checkpoint_now(self, held: Held, service_job_id: str) -> None:
        """Keep the service's id of the run, and return when Redis has it, however long that takes."""
        held.checkpoint = sendable(service_job_id, _MESSAGE_MAX)
        lease = Lease(held.claimed.job.id, held.claimed.token, service_job_id=held.checkpoint)
        renewal = await until_done("keeping a checkpoint", lambda: self._consumer.renew([lease]))
        if lease.job_id in renewal.lost:
            held.stop("lost")

    async def fresh(self) -> None:
        """Wait until the leases are known to hold: after Redis was away, outcomes are sent when they were renewed."""
        while self._clock() - self._renewed_at > self._lease_s:
            await self._renewed.wait()

    def lose(self, job_id: str, token: str) -> None:
        """The lease is somebody else's now: stop the attempt."""
        if self.holds(job_id, token):
            self._held[job_id].stop("lost")

    def is_over(self, redis_s: float) -> bool:
        """Whether a time of Redis's clock has passed, as far as is known here."""
        return self._ahead_s is not None and self._clock() + self._ahead_s > redis_s

    async def run(self) -> None:
        """Renew until cancelled."""
        pause_s = 0.0
        while True:
            with anyio.move_on_after(pause_s):
                await self._changed.wait()
            self._drop_if_stood_still()
            began = self._clock()
            try:
                await self._renew()
            except AWAY as error:
                log.warning("leases are not renewed: redis is away", error=str(error), jobs=len(self._held))
                pause_s = 0.2
            else:
                pause_s = self._lease_s / 3
            # Progress that came meanwhile goes with the next call, half a second later.
            rest_s = min(pause_s, _PROGRESS_EVERY_S) - (self._clock() - began)
            if rest_s > 0:
                await anyio.sleep(rest_s)

    def _drop_if_stood_still(self) -> None:
        """When the process stood still (SIGSTOP, a suspended machine) rather than Redis, its leases are not to be revived.

        No call takes as long as a lease, so that a gap as long as that is this process's own.
        """
        now = self._clock()
        before, self._looked_at = self._looked_at, now
        if before is not None and now - before > self._lease_s:
            log.warning("this process was stopped for longer than its leases hold", jobs=len(self._held))
            self.stop_all("lost")

    async def _renew(self) -> None:
        self._changed = anyio.Event()
        began = self._clock()
        asked = [(held, held.take_changes()) for held in self._held.values() if held.stopped != "lost"]
        try:
            renewal = await self._consumer.renew([lease for _, lease in asked])
        except BaseException:
            for held, lease in asked:
                held.put_back(lease)
            raise
        finally:
            self._drop_if_stood_still()
        self._ahead_s = renewal.redis_s - self._clock()
        self._renewed_at = began  # the leases hold from when Redis was asked, or a little later
        self._renewed.set()
        self._renewed = anyio.Event()
        for held, lease in asked:
            if lease.job_id in renewal.lost:
                if held.scope is not None:
                    log.warning("lease lost", job=lease.job_id)
                held.stop("lost")
            elif lease.job_id in renewal.cancelled:
                held.stop("cancelled")
        self._on_renewal(renewal)
