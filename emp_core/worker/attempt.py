"""One attempt: report, process, decide. What it decided is a value, which the finisher records."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
from attrs import Factory, evolve, field, frozen

from emp_core.connectors.base import Connector
from emp_core.connectors.context import JobContext, Preview
from emp_core.errors import (
    AttemptTimeout,
    ConnectorError,
    DeadlineExceeded,
    EmpError,
    InvalidJob,
    NotHere,
    StorageError,
    StorageUnavailable,
)
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.codec import dumps, encode_error, encode_result, told
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import Cancelled, Completed, Failed, JobResult, Release, Retry
from emp_core.jobs.retry import Backoff, outcome_of
from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY
from emp_core.queue.consumer import Finish
from emp_core.storage.stores import Stores
from emp_core.worker.contained import cancelled_elsewhere, is_cancelled
from emp_core.worker.finisher import Finisher
from emp_core.worker.gpus import GpuUse
from emp_core.worker.leases import Held, Leases

__all__ = ["Attempts"]

log = get_logger("emp.worker")

NotDone = Retry | Failed | Release | Cancelled

_HANDED_ON = ("lost", "drained")


@frozen
class _Done:
    """A result that fits, and its text: encoding it twice would cost as much as a small job does."""

    result: JobResult
    text: str
    usage: str
    record: str


@frozen
class Attempts:
    """Runs attempts on this worker."""

    worker_id: str
    stores: Stores
    inputs: InputTaking
    leases: Leases
    finisher: Finisher
    warn: Callable[[str, str], Awaitable[None]]
    backoff: Backoff
    max_result_bytes: int
    _by: str = field(init=False, default=Factory(lambda self: f',"worker":{dumps(self.worker_id)}', takes_self=True))

    async def run(
        self,
        connector: Connector,
        held: Held,
        scope: anyio.CancelScope,
        on_end: Callable[[Exception | None], None],
    ) -> None:
        """Run a job until it is decided what becomes of it, and hand that over.

        Args:
            scope: the one that it is run in, which stops it. Once it did, nothing is awaited any more.
            on_end: told how the connector ended: None when it did its work, else the failure.
        """
        began = time.perf_counter()
        decided = await self._decide(connector, held, scope, on_end)
        if held.stopped == "lost":
            self.leases.let_go(held)
            return
        record = f'{self._by},"ran_ms":{(time.perf_counter() - began) * 1000:.1f}{_gpu_record(held.gpu)}'
        if isinstance(decided, _Done):
            job, token = held.claimed.job, held.claimed.token
            done = Finish(
                job.id, token, "completed", result=decided.text, usage=decided.usage, record=record + decided.record
            )
            self.finisher.hand_over(held, Completed(decided.result), done)
        else:
            self.finisher.hand_over(held, decided, self._encode(held, decided, record))

    async def _decide(
        self,
        connector: Connector,
        held: Held,
        scope: anyio.CancelScope,
        on_end: Callable[[Exception | None], None],
    ) -> NotDone | _Done:
        job = held.claimed.job
        limit_s = _time_limit_s(job)
        if limit_s is not None:
            if limit_s <= 0 and not held.stopped:
                return self._outcome_of_failure(job, _out_of_time(job, limit_s))
            scope.deadline = anyio.current_time() + limit_s
        held.scope = scope
        if held.stopped:
            scope.cancel()
        failure: Exception
        try:
            done = await self._process(connector, held)
        except Exception as error:  # whatever a connector raises is the outcome of this attempt, and nobody else's
            failure = _the_failure(error)
        except anyio.get_cancelled_exc_class():
            if scope.cancel_called:
                failure = _out_of_time(job, limit_s)
            elif is_cancelled():
                raise
            else:
                failure = cancelled_elsewhere()
        else:
            on_end(None)
            return done
        finally:
            held.scope = None
            if limit_s is not None:
                scope.deadline = math.inf
        if held.stopped:
            return _outcome_of_stop(held.stopped)
        if isinstance(failure, StorageUnavailable) and (scope.cancel_called or await self._store_works()):
            # Not this worker's trouble but this job's: its attempts count.
            failure = StorageError(failure.message, hint=failure.hint, details=failure.details)
        on_end(failure)
        return self._outcome_of_failure(job, failure)

    async def _process(self, connector: Connector, held: Held) -> _Done:
        job = held.claimed.job
        if job.unreadable:
            raise InvalidJob(f"the job cannot be read by this worker: {'; '.join(job.unreadable)}")
        payload = connector.payload_of(job)
        if refusal := await connector.can_process_job(job):
            raise NotHere(refusal.reason)
        async with self.stores.of(job.ctx) as store:
            inputs = self.inputs.of(job, own_store=store if self.stores.is_brought(job.ctx) else None)
            context = JobContext(
                job,
                store=store,
                inputs=inputs,
                report=partial(self._report, held),
                save_checkpoint=partial(self._checkpoint, held),
                secure_checkpoint=partial(self.leases.checkpoint_now, held),
                put_out=partial(self.leases.put_out, held),
                is_handed_on=lambda: held.stopped in _HANDED_ON,
                warn=partial(self._tell_warning, job),
                deadline=job.deadline_at,
                payload=payload,
            )
            try:
                result = await connector.process_job(job, context)
            finally:
                await inputs.aclose()
            return await self._fit(context, result)

    async def _store_works(self) -> bool:
        try:
            await self.stores.get().check()
        except StorageError as error:
            log.warning("artifacts cannot be stored here", error=error.message, hint=error.hint)
            return False
        return True

    def _report(self, held: Held, percent: float, message: str | None, preview: Preview | None) -> None:
        del preview  # pictures of work in progress are for those who embed the worker; the queue carries texts
        self.leases.report(held, percent, message)

    async def _checkpoint(self, held: Held, service_job_id: str) -> None:
        self.leases.checkpoint(held, service_job_id)

    async def _tell_warning(self, job: Job, message: str) -> None:
        try:
            await self.warn(job.id, told(message))
        except AWAY as error:
            log.warning("a job could not be told of trouble: redis is away", job=job.id, error=str(error))

    async def _fit(self, context: JobContext, result: JobResult) -> _Done:
        """The result as it is, or, when it or its usage is too large for Redis, one that refers to where that is stored."""
        usage, record = dumps(dict(result.usage)) if result.usage else "", _usage_record(result.usage)
        if usage and not self._fits(usage):
            kept = await context.save(usage.encode(), "usage.json", "application/json", metadata={"kind": "usage"})
            result = evolve(result, usage={"usage_artifact": kept.url}, artifacts=(kept, *result.artifacts))
            usage = dumps(result.usage)
        text = encode_result(result)
        if self._fits(text):
            return _Done(result, text, usage, record)
        whole = await context.save(text.encode(), "result.json", "application/json", metadata={"kind": "result"})
        small = evolve(result, data={"result_artifact": whole.url}, artifacts=(whole, *result.artifacts))
        if not self._fits(text := encode_result(small)):
            small = evolve(small, artifacts=(whole,))
            text = encode_result(small)
        return _Done(small, text, usage, record)

    def _fits(self, text: str) -> bool:
        # What cannot be sent is this attempt's failure, too.
        return len(text) <= self.max_result_bytes and len(text.encode()) <= self.max_result_bytes

    def _outcome_of_failure(self, job: Job, failure: Exception) -> NotDone:
        outcome = outcome_of(failure, attempt=job.attempt, max_attempts=job.max_attempts, backoff=self.backoff)
        if isinstance(failure, EmpError):
            log.warning(
                "attempt failed",
                job=job.id,
                attempt=job.attempt,
                code=failure.code,
                error=told(failure.message),
            )
        else:
            log.error("attempt failed unexpectedly", job=job.id, attempt=job.attempt, exc_info=failure)
        return outcome

    def _encode(self, held: Held, outcome: NotDone, record: str) -> Finish:
        job, token, kept = held.claimed.job, held.claimed.token, held.checkpoint
        match outcome:
            case Failed(error):
                return Finish(job.id, token, "failed", error=encode_error(error), record=record)
            case Cancelled():
                return Finish(job.id, token, "cancelled", record=record)
            case Retry(error, delay_s, avoid_worker):
                moved = evolve(job.requirement, avoid=(self.worker_id,)) if avoid_worker else None
                where: dict[str, Any] = {"lane": moved.lane, "requirement": moved.as_json()} if moved else {}
                why = encode_error(error)
                return Finish(
                    job.id, token, "retry", delay_s=delay_s, error=why, record=record, checkpoint=kept, **where
                )
            case Release(error, avoid_worker):
                not_here = (*job.requirement.not_here, self.worker_id)
                moved = evolve(job.requirement, not_here=not_here) if avoid_worker else None
                where = {"lane": moved.lane, "requirement": moved.as_json()} if moved else {}
                why = encode_error(error) if error else ""
                return Finish(job.id, token, "release", error=why, record=record, checkpoint=kept, **where)


def _time_limit_s(job: Job) -> float | None:
    """How long the attempt may take: by its own limit, and by the job's deadline."""
    if job.deadline_at is None:
        return job.timeout_s
    # From when it was claimed, by Redis's clock: this machine's may be wrong.
    left_s = max(0.0, (job.deadline_at - (job.started_at or datetime.now(UTC))).total_seconds())
    return left_s if job.timeout_s is None else min(left_s, job.timeout_s)


def _out_of_time(job: Job, limit_s: float | None) -> ConnectorError:
    """The failure of an attempt that took as long as it may."""
    if limit_s == job.timeout_s:
        return AttemptTimeout(f"the attempt took longer than the {job.timeout_s or 0:g} s that the job allows")
    return DeadlineExceeded("the deadline passed before the job was done")


def _outcome_of_stop(why: str) -> NotDone:
    """An attempt that was stopped from outside. A lost lease has no outcome: what is made of it is refused."""
    return Cancelled() if why == "cancelled" else Release()


def _the_failure(error: Exception) -> Exception:
    """The one failure that decides, out of a group that a connector's task group may raise."""
    leaves = list(_leaves(error))
    return next((leaf for leaf in leaves if isinstance(leaf, ConnectorError)), leaves[0])


def _leaves(error: Exception) -> Any:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _gpu_record(use: GpuUse | None) -> str:
    if use is None:
        return ""
    memory = "" if use.memory_mb is None else f',"gpu_memory_mb":{use.memory_mb}'
    return memory if use.utilization is None else f'{memory},"gpu_utilization":{use.utilization}'


def _usage_record(usage: Mapping[str, Any]) -> str:
    """What a connector tells of an attempt under the names that records have."""
    if not usage:
        return ""
    told = ((name, usage.get(name)) for name in ("loading_ms", "cache_hits"))
    return "".join(f',"{name}":{dumps(value)}' for name, value in told if isinstance(value, (int, float)))
