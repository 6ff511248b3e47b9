"""Submitting: from specs to jobs in Redis, many per round trip."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import structlog
from attrs import evolve

from emp_core.config import Settings
from emp_core.errors import DuplicateJob, NobodyServes, QueueFull
from emp_core.jobs.codec import EncodedSpec, decode_job, dumps, encode_spec, from_us, to_us
from emp_core.jobs.ids import new_job_id
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls
from emp_core.queue.explain import unserved_reasons
from emp_core.queue.scripts import load_script
from emp_core.queue.workers import WorkerView

__all__ = ["Submitter"]

log = structlog.get_logger("emp.submit")

_BATCH = 100
"""Jobs per script: more would hold up everybody else for longer."""
_PIPELINE = 5


class Submitter:
    """Puts jobs into the queue.

    Args:
        get: reads a job that was there already.
        workers: reads the live workers, to tell when nobody serves a job.
    """

    def __init__(
        self,
        calls: Calls,
        settings: Settings,
        get: Callable[[str], Awaitable[Job]],
        workers: Callable[[], Awaitable[list[WorkerView]]],
    ) -> None:
        self._calls = calls
        self._settings = settings
        self._get = get
        self._workers = workers

    async def submit_many(self, specs: Iterable[JobSpec], *, strict: bool) -> list[Job]:
        """What `JobQueue.submit_many` does."""
        most = self._settings.max_payload_bytes
        encoded = [(spec, spec.id or new_job_id(), encode_spec(spec, max_payload_bytes=most)) for spec in specs]
        if strict:
            for requirement in {entry.requirement for _, _, entry in encoded}:
                await self._refuse_unserved(Requirement.from_json(requirement))
        batches = [encoded[start : start + _BATCH] for start in range(0, len(encoded), _BATCH)]
        replies: list[Any] = []
        for start in range(0, len(batches), _PIPELINE):
            some = batches[start : start + _PIPELINE]
            replies += await self._calls.repeated(partial(self._send_batches, some))
        return await self._submitted_batches(batches, replies)

    async def _submitted_batches(
        self, batches: "Sequence[Sequence[tuple[JobSpec, str, EncodedSpec]]]", replies: Sequence[Any]
    ) -> list[Job]:
        jobs: list[Job] = []
        unserved: dict[str, Job] = {}
        for batch, reply in zip(batches, replies, strict=True):
            now = float(reply[0])
            for i, (spec, _, entry) in enumerate(batch):
                code, job_id, serving = reply[1 + 3 * i : 4 + 3 * i]
                job = await self._submitted(int(code), job_id, spec, entry, now)
                jobs.append(job)
                if int(code) == 1 and int(serving) <= 0:
                    unserved.setdefault(entry.requirement, job)
        for requirement, job in unserved.items():
            await self._warn_if_unserved(Requirement.from_json(requirement), job)
        return jobs

    async def _send_batches(self, batches: "Sequence[Sequence[tuple[JobSpec, str, EncodedSpec]]]") -> list[Any]:
        script = load_script("submit")
        calls = [
            (
                {"count": len(batch), **self._submit_arguments()},
                [text for entry in batch for text in _submit_rest(*entry)],
            )
            for batch in batches
        ]
        if len(calls) == 1:
            return [await script(self._calls.client, self._calls.keys, *calls[0])]
        await self._calls.client.script_load(script.source)
        async with self._calls.client.pipeline(transaction=False) as pipe:
            for arguments, rest in calls:
                pipe.evalsha(script.sha, *script.call(self._calls.keys, arguments, rest))
            replies: list[Any] = await pipe.execute()
            return replies

    def _submit_arguments(self) -> dict[str, str | int | float]:
        settings = self._settings
        return {
            "events_max": settings.events_max,
            "step_us": round(settings.priority_step_s * 1e6),
            "max_pending": settings.max_pending,
            "max_lanes": settings.max_lanes,
            "keep_idempotency_ms": round(settings.keep_idempotency_s * 1000),
        }

    async def _submitted(self, code: int, job_id: str, spec: JobSpec, entry: EncodedSpec, now_us: float) -> Job:
        match code:
            case 1:
                return _new_job(job_id, spec, entry, now_us, self._settings)
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

    async def _refuse_unserved(self, requirement: Requirement) -> None:
        if reasons := unserved_reasons(requirement, await self._workers()):
            raise NobodyServes(
                f"no live worker can run this: {'; '.join(reasons)}", details={"requirement": requirement.as_dict()}
            )

    async def _warn_if_unserved(self, requirement: Requirement, job: Job) -> None:
        if reasons := unserved_reasons(requirement, await self._workers()):
            fragment = ',"reasons":' + dumps(reasons)
            await self._calls.run(
                "note",
                {"events_max": self._settings.events_max, "id": job.id, "name": "unserved", "fragment": fragment},
            )
            await self._calls.run("mark", {"id": job.id, "field": "unserved"})
            log.warning("no live worker can run this job now", job=job.id, reasons=reasons)


def _submit_rest(spec: JobSpec, job_id: str, entry: EncodedSpec) -> tuple[str, str]:
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
        )
    ), entry.payload


def _new_job(job_id: str, spec: JobSpec, entry: EncodedSpec, now_us: float, settings: Settings) -> Job:
    """What `get` would give, without asking."""
    fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
    later = spec.start_at is not None and to_us(spec.start_at) > now_us
    fields["status"] = JobState.SCHEDULED if later else JobState.PENDING
    job = decode_job(job_id, fields, max_attempts=settings.max_attempts)
    return evolve(job, payload=spec.payload, created_at=from_us(now_us))
