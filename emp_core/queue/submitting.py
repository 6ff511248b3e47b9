"""Submitting: from specs to jobs in Redis, many per round trip."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from emp_core.config import Settings
from emp_core.errors import DuplicateJob, NobodyServes, QueueFull
from emp_core.jobs.codec import EncodedSpec, dumps, encode_spec, from_us, loads, to_us
from emp_core.jobs.ids import new_job_id
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.log.logger import get_logger
from emp_core.queue.calls import Calls
from emp_core.queue.expecting import Expectations
from emp_core.queue.refusing import REFUSED, refuse_by_place
from emp_core.queue.scripts import load_script
from emp_core.queue.unserved import tell_unserved, unserved_reasons
from emp_core.queue.workers import WorkerView

if TYPE_CHECKING:
    from emp_core.plugins.preparing import Preparer

__all__ = ["Submitter"]

log = get_logger("emp.submit")

_BATCH = 100
"""Jobs per script: more would hold up everybody else for longer."""
_TRIP = 500
"""Jobs per round trip."""
_TRIP_LENGTH = 16 * 2**20
"""Characters of payloads per round trip, where one alone is not longer: Redis has to take them in before it answers, and holds
up everybody else while it puts them away."""
_ASK_EVERY_S = 1.0
_ASKED_MOST = 1000
_TOLD_MOST = 100
"""So many jobs of one submit with the same requirement and customer are told at once that nobody can run them."""

_Batch = Sequence[tuple[JobSpec, str, EncodedSpec]]
_Asked = tuple[str, str | None]
"""A requirement as JSON, and the customer."""
_Call = tuple[Mapping[str, Any], Sequence[str]]


class Submitter:
    """Puts jobs into the queue.

    Args:
        get: reads a job that was there already.
        workers: reads the live workers, to tell when nobody serves a job.
        preparer: what plugins do to a job first; None: nothing.
    """

    def __init__(
        self,
        calls: Calls,
        settings: Settings,
        expectations: Expectations,
        *,
        get: Callable[[str], Awaitable[Job]],
        workers: Callable[[], Awaitable[list[WorkerView]]],
        preparer: "Preparer | None" = None,
    ) -> None:
        self._preparer = preparer
        self._calls = calls
        self._settings = settings
        self._expectations = expectations
        self._get = get
        self._workers = workers
        constants = {
            "events_max": settings.events_max,
            "step_us": round(settings.priority_step_s * 1e6),
            "max_pending": settings.max_pending,
            "max_lanes": settings.max_lanes,
            "keep_idempotency_ms": round(settings.keep_idempotency_s * 1000),
        }
        self._script = load_script("submit").bound(calls.keys, constants)
        self._asked_at: dict[str, float] = {}
        self._seen: Sequence[WorkerView] = ()

    async def submit(self, spec: JobSpec, *, strict: bool) -> Job:
        """What `JobQueue.submit` does."""
        batch = await self._prepared((spec,), strict=strict)
        reply = await self._calls.repeated(partial(self._send_one, batch))
        [job] = await self._submitted((batch,), (reply,))
        return job

    async def submit_many(self, specs: Iterable[JobSpec], *, strict: bool) -> list[Job]:
        """What `JobQueue.submit_many` does."""
        batches: list[_Batch] = []
        replies: list[Any] = []
        for trip in _trips(await self._prepared_many(list(specs), strict=strict)):
            some = [trip[start : start + _BATCH] for start in range(0, len(trip), _BATCH)]
            batches += some
            replies += await self._calls.repeated(partial(self._send, [_call_of(batch) for batch in some]))
        return await self._submitted(batches, replies)

    async def _prepared_many(self, said: Sequence[JobSpec], *, strict: bool) -> _Batch:
        try:
            return await self._prepared(said, strict=strict)
        except REFUSED:
            await refuse_by_place(said, partial(self._prepared, strict=False))
            raise

    async def _prepared(self, said: Sequence[JobSpec], *, strict: bool) -> _Batch:
        """The specs as they go into the queue."""
        prepared = said if self._preparer is None else await self._preparer.prepare(said)
        most = self._settings.max_payload_bytes
        encoded = [
            (spec, spec.id or new_job_id(), encode_spec(spec, max_payload_bytes=most, said=given))
            for spec, given in zip(prepared, said, strict=True)
        ]
        if strict:
            asked = {(entry.requirement, spec.customer_id) for spec, _, entry in encoded}
            self._refuse_unserved(asked, await self._workers())
        return encoded

    async def _submitted(self, batches: Sequence[_Batch], replies: Sequence[Any]) -> list[Job]:
        jobs: list[Job] = []
        unserved: dict[_Asked, list[str]] = {}
        for batch, text in zip(batches, replies, strict=True):
            now, *answers = loads(text)
            created_at = from_us(now)
            for (spec, sent_id, entry), code, job_id, serving in zip(
                batch, answers[::3], answers[1::3], answers[2::3], strict=True
            ):
                if code != 1:
                    self._expectations.forget(sent_id)
                    jobs.append(await self._not_taken(code, job_id))
                    continue
                job = _new_job(job_id, spec, created_at, self._settings.max_attempts)
                jobs.append(job)
                if serving <= 0:
                    unserved.setdefault((entry.requirement, spec.customer_id), []).append(job_id)
        if unserved:
            await self._tell_unserved(unserved)
        return jobs

    async def _send_one(self, batch: _Batch) -> str:
        # WAIT would hold up whatever else comes on the connection that is listened on.
        if not self._settings.wait_replicas:
            [(_, job_id, entry)] = batch
            made = partial(self._waited_for, batch)
            told: str | None = await self._expectations.submit(job_id, entry.payload, made)
            if told is not None:
                return told
        [reply] = await self._send((_call_of(batch),))
        return str(reply)

    def _waited_for(self, batch: _Batch, waiter: str) -> bytes:
        """The call, packed, for jobs that carry the name of who will wait for them."""
        return self._script.call(*_call_of(batch, ("waiter", waiter)))

    def _send(self, calls: Sequence[_Call]) -> Awaitable[list[Any]]:
        return self._script.together(
            self._calls.client, calls, replicas=self._settings.wait_replicas, limit_ms=self._calls.copies_ms
        )

    async def _not_taken(self, code: int, job_id: str) -> Job:
        match code:
            case 0:
                return await self._get(job_id)
            case -1:
                raise DuplicateJob(
                    f"job {job_id} has the same id or idempotency key and another body", details={"job_id": job_id}
                )
            case -2:
                raise QueueFull(
                    f"{self._settings.max_pending:,} jobs wait already",
                    hint="submit again later, or raise EMP_MAX_PENDING",
                )
        raise QueueFull(
            f"{self._settings.max_lanes:,} different requirements are in the queue already",
            hint="use fewer different requirements, or raise EMP_MAX_LANES",
        )

    def _may_ask(self, requirement: str) -> bool:
        """Whether it is time to ask again if anybody serves this: not for every job of a burst."""
        now = anyio.current_time()
        if now - self._asked_at.get(requirement, -_ASK_EVERY_S) < _ASK_EVERY_S:
            return False
        if len(self._asked_at) >= _ASKED_MOST:
            self._asked_at.clear()
        self._asked_at[requirement] = now
        return True

    def _refuse_unserved(self, asked: Iterable[_Asked], workers: Sequence[WorkerView]) -> None:
        for text, customer in asked:
            requirement = Requirement.from_json(text)
            if reasons := unserved_reasons(requirement, customer, workers):
                raise NobodyServes(
                    f"no live worker can run this: {'; '.join(reasons)}", details={"requirement": requirement.as_dict()}
                )

    async def _tell_unserved(self, taken: Mapping[_Asked, Sequence[str]]) -> None:
        """Tell jobs whose lane nobody serves yet that nobody can run them. While no worker is alive, only one job for each
        requirement that was just asked for: the keeper tells the others, and such a submit takes no longer than another."""
        asked = {requirement for requirement, _ in taken if self._may_ask(requirement)}
        if asked:
            self._seen = await self._workers()
        for (text, customer), job_ids in taken.items():
            is_first = text in asked
            asked.discard(text)
            if not (is_first or self._seen):
                continue
            requirement = Requirement.from_json(text)
            if reasons := unserved_reasons(requirement, customer, self._seen):
                some = job_ids[: _TOLD_MOST if self._seen else 1]
                line = (requirement.lane, customer or "")
                await tell_unserved(self._calls.run, line, some, reasons, events_max=self._settings.events_max)
                if is_first:
                    log.warning("no live worker can run this job now", job=job_ids[0], reasons=reasons)


def _trips(encoded: _Batch) -> Iterator[_Batch]:
    start = length = 0
    for end, (_, _, entry) in enumerate(encoded):
        if end > start and (end - start == _TRIP or length + len(entry.payload) > _TRIP_LENGTH):
            yield encoded[start:end]
            start, length = end, 0
        length += len(entry.payload)
    if encoded:
        yield encoded[start:]


def _call_of(batch: _Batch, further: Sequence[str] = ()) -> _Call:
    rest: list[str] = []
    for entry in batch:
        rest += _submit_rest(*entry, further)
    return {"count": len(batch)}, rest


def _submit_rest(spec: JobSpec, job_id: str, entry: EncodedSpec, further: Sequence[str]) -> tuple[str, str]:
    """A job's part of the call. ``further``: names and values for its hash besides those of its spec."""
    # One text per job: the client takes longer to send ten short texts than one long one.
    return dumps(
        (
            job_id,
            entry.lane,
            entry.requirement,
            spec.customer_id or "",
            spec.priority,
            str(to_us(spec.start_at)) if spec.start_at else "",
            str(to_us(spec.deadline_at)) if spec.deadline_at else "",
            spec.idempotency_key or "",
            entry.digest,
            *entry.fields,
            *further,
        )
    ), entry.payload


def _new_job(job_id: str, spec: JobSpec, created_at: datetime | None, max_attempts: int) -> Job:
    """What `JobQueue.get` would give, without asking."""
    later = spec.start_at is not None and created_at is not None and spec.start_at > created_at
    return Job(
        id=job_id,
        service_required=spec.service_required,
        type=spec.type or spec.service_required,
        status=JobState.SCHEDULED if later else JobState.PENDING,
        priority=spec.priority,
        payload=spec.payload,
        ctx=spec.ctx,
        requirement=spec.requirement,
        customer_id=spec.customer_id,
        user_tier=spec.user_tier,
        region=spec.region,
        pool=spec.pool,
        estimated_duration_s=spec.estimated_duration_s,
        max_attempts=spec.max_attempts or max_attempts,
        timeout_s=spec.timeout_s,
        labels=spec.labels,
        traceparent=spec.traceparent,
        idempotency_key=spec.idempotency_key,
        created_at=created_at,
        start_at=spec.start_at and spec.start_at.astimezone(UTC),
        deadline_at=spec.deadline_at and spec.deadline_at.astimezone(UTC),
    )
