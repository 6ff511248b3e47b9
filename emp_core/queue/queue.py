"""`JobQueue`: what programs that submit jobs and look after them see of the queue."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import evolve, frozen
from redis.asyncio import Redis

from emp_core.config import Settings
from emp_core.errors import (
    ConfigError,
    DuplicateJob,
    IllegalTransition,
    JobNotFound,
    NobodyServes,
    QueueError,
    QueueFull,
)
from emp_core.jobs.codec import EncodedSpec, decode_job, encode_spec, from_us, to_us
from emp_core.jobs.ids import new_job_id
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.requirements import Match, Requirement, match
from emp_core.jobs.states import JobState
from emp_core.queue.connection import AWAY, connect, shown_url, unavailable, wait_for_redis
from emp_core.queue.embedded import running
from emp_core.queue.events import JobEvent, decode_event
from emp_core.queue.keys import Keys
from emp_core.queue.listening import Listener
from emp_core.queue.scripts import load_script
from emp_core.queue.workers import WorkerView, decode_worker

__all__ = ["JobQueue", "Keeping"]

T = TypeVar("T")

log = structlog.get_logger("emp.queue")

_BATCH = 100
"""Jobs per script: more would hold up everybody else for longer."""
_PIPELINE = 5
_RETRY_S = 10.0
_REREAD_S = 5.0


@frozen
class Keeping:
    """What the scripts are told about retention."""

    events_max: int
    keep_completed_ms: int
    keep_failed_ms: int
    keep_cancelled_ms: int

    @classmethod
    def of(cls, settings: Settings) -> "Keeping":
        """From the settings."""
        return cls(
            settings.events_max,
            round(settings.keep_completed_s * 1000),
            round(settings.keep_failed_s * 1000),
            round(settings.keep_cancelled_s * 1000),
        )

    def as_arguments(self) -> dict[str, int]:
        """By the names that the scripts have for them."""
        return {
            "events_max": self.events_max,
            "keep_completed_ms": self.keep_completed_ms,
            "keep_failed_ms": self.keep_failed_ms,
            "keep_cancelled_ms": self.keep_cancelled_ms,
        }


class JobQueue:
    """The queue, for those who submit jobs and look after them.

    Use it as ``async with JobQueue.connect(url) as queue``. Calls are safe to repeat and are repeated for up to 10 s
    while Redis is away; then they raise QueueUnavailable.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url = url
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self._keeping = Keeping.of(settings).as_arguments()
        self._stack = AsyncExitStack()
        # Any: the client's own annotations leave open whether replies are text or bytes.
        self._client: Any = None
        self._listener = Listener(lambda: connect(self.url))

    @classmethod
    def connect(cls, url: str | None = None, *, settings: Settings | None = None) -> Self:
        """A queue at ``url``; at ``HUB_REDIS_URL`` when not given, or else at the embedded Redis that runs on this machine."""
        return cls(url, Settings.from_env() if settings is None else settings)

    async def __aenter__(self) -> Self:
        if self._url is None:
            self._url = await find_redis(self.settings)
        async with AsyncExitStack() as stack:
            client = connect(self.url)
            stack.push_async_callback(_close, client)
            await wait_for_redis(client, self.url, limit_s=self.settings.redis_wait_s)
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(self._listener.run, name="emp listener")
            self._client = client
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        await self._stack.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Where Redis is, once the queue is open."""
        return self._url or ""

    @property
    def client(self) -> Any:
        """The redis-py client, for what this class does not offer."""
        if self._client is None:
            raise QueueError("the queue is not open", hint="use it as: async with JobQueue.connect(url) as queue")
        return self._client

    # -- submitting ----------------------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec, *, strict: bool = False) -> Job:
        """Put a job into the queue. When this returns, the job is in Redis.

        Args:
            strict: refuse the job when no live worker can run it; otherwise that is only warned of.

        Raises:
            ConfigError: the spec cannot be used; lists every mistake.
            PayloadTooLarge, QueueFull, NobodyServes: refused.
            DuplicateJob: the id or the idempotency key belongs to a job with another body.
        """
        [job] = await self.submit_many([spec], strict=strict)
        return job

    async def submit_many(self, specs: Iterable[JobSpec], *, strict: bool = False) -> list[Job]:
        """Put many jobs into the queue, 500 per round trip. The jobs come back in the order of the specs.

        Refusals are raised for the first spec that was refused, after all were sent: what else was taken stays taken,
        and submitting the same specs with their ids or idempotency keys again is harmless.

        Raises:
            The same as `submit`.
        """
        settings = self.settings
        encoded = [
            (spec, spec.id or new_job_id(), encode_spec(spec, max_payload_bytes=settings.max_payload_bytes))
            for spec in specs
        ]
        if strict:
            for requirement in {entry.requirement for _, _, entry in encoded}:
                await self._refuse_unserved(Requirement.from_json(requirement))
        jobs: list[Job] = []
        for start in range(0, len(encoded), _BATCH * _PIPELINE):
            jobs += await self._submit_batches(encoded[start : start + _BATCH * _PIPELINE])
        return jobs

    async def _submit_batches(self, entries: "Sequence[tuple[JobSpec, str, EncodedSpec]]") -> list[Job]:
        batches = [entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH)]
        replies = await self._repeated(lambda: self._send_batches(batches))
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
            return [await script(self.client, self.keys, *calls[0])]
        await self.client.script_load(script.source)
        async with self.client.pipeline(transaction=False) as pipe:
            for arguments, rest in calls:
                pipe.evalsha(script.sha, *script.call(self.keys, arguments, rest))
            replies: list[Any] = await pipe.execute()
            return replies

    def _submit_arguments(self) -> dict[str, str | int | float]:
        settings = self.settings
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
                return _new_job(job_id, spec, entry, now_us, self.settings)
            case 0:
                return await self.get(job_id)
            case -1:
                raise DuplicateJob(
                    f"job {job_id} has the same id or idempotency key and another body", details={"job_id": job_id}
                )
            case -2:
                raise QueueFull(
                    f"{self.settings.max_pending:,} jobs wait already",
                    hint="submit again later, or raise EMP_MAX_PENDING",
                )
        raise QueueFull(
            f"{self.settings.max_lanes:,} different requirements are in the queue already",
            hint="use fewer different requirements, or raise EMP_MAX_LANES",
        )

    async def _refuse_unserved(self, requirement: Requirement) -> None:
        if reasons := await self._unserved(requirement):
            raise NobodyServes(
                f"no live worker can run this: {'; '.join(reasons)}", details={"requirement": requirement.as_dict()}
            )

    async def _warn_if_unserved(self, requirement: Requirement, job: Job) -> None:
        if reasons := await self._unserved(requirement):
            fragment = ',"reasons":' + json.dumps(reasons)
            await self._run(
                "note", {"events_max": self.settings.events_max, "id": job.id, "name": "unserved", "fragment": fragment}
            )
            log.warning("no live worker can run this job now", job=job.id, reasons=reasons)

    async def _unserved(self, requirement: Requirement) -> list[str]:
        """Why nobody serves the requirement; empty when somebody does."""
        workers = await self.workers()
        judged = [(worker, match(requirement, worker.capabilities)) for worker in workers]
        if any(isinstance(verdict, Match) for _, verdict in judged):
            return []
        if not workers:
            return ["no worker is alive"]
        return [
            f"{worker.id}: {', '.join(verdict.reasons)}" for worker, verdict in judged if not isinstance(verdict, Match)
        ]

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, job_id: str, *, payload: bool = True) -> Job:
        """The job as it is now.

        Raises:
            JobNotFound: there is no such job.
        """
        fields: dict[str, str] = await self._repeated(lambda: self.client.hgetall(self.keys.job(job_id)))
        if "status" not in fields:
            raise JobNotFound(
                f"there is no job {job_id}", hint="it never was, or it was kept for as long as it should be"
            )
        text = await self._repeated(lambda: self.client.get(self.keys.payload(job_id))) if payload else None
        return decode_job(job_id, fields, text, max_attempts=self.settings.max_attempts)

    async def jobs(
        self, states: Sequence[JobState] = tuple(JobState), *, limit: int = 100, service: str | None = None
    ) -> list[Job]:
        """Jobs by state, the newest first within each, without their payloads."""
        found: list[Job] = []
        for state in states:
            start = 0
            while len(found) < limit:
                ids = await self._repeated(
                    partial(self.client.zrevrange, self.keys.index(state), start, start + _BATCH - 1)
                )
                found += [job for job in await self._jobs(ids) if service in (None, job.service_required)]
                start += _BATCH
                if len(ids) < _BATCH:
                    break
        return found[:limit]

    async def _jobs(self, ids: Sequence[str]) -> list[Job]:
        async def read() -> Any:
            async with self.client.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(self.keys.job(job_id))
                return await pipe.execute()

        hashes = await self._repeated(read) if ids else []
        most = self.settings.max_attempts
        # A hash may have expired before its index was trimmed.
        return [
            decode_job(i, fields, max_attempts=most)
            for i, fields in zip(ids, hashes, strict=True)
            if "status" in fields
        ]

    async def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""

        async def read() -> Any:
            async with self.client.pipeline(transaction=False) as pipe:
                for state in JobState:
                    pipe.zcard(self.keys.index(state))
                return await pipe.execute()

        return dict(zip(JobState, await self._repeated(read), strict=True))

    async def workers(self) -> list[WorkerView]:
        """The live workers and what they offer."""

        async def read() -> Any:
            ids = await self.client.zrange(self.keys.fixed("workers"), 0, -1)
            async with self.client.pipeline(transaction=False) as pipe:
                for worker_id in ids:
                    pipe.hgetall(self.keys.worker(worker_id, "capabilities"))
                    pipe.pttl(self.keys.worker(worker_id, "heartbeat"))
                return ids, await pipe.execute()

        ids, replies = await self._repeated(read)
        return [
            decode_worker(worker_id, facts, ttl_ms / 1000)
            for worker_id, facts, ttl_ms in zip(ids, replies[::2], replies[1::2], strict=True)
            if facts and ttl_ms > 0
        ]

    # -- following -----------------------------------------------------------------------------------------------

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job, once it is in a final state.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            JobNotFound: there is no such job, or it was forgotten meanwhile.
            TimeoutError: it was not done in time; it goes on.
        """
        with anyio.fail_after(timeout):
            async with self._listener.subscribed(self.keys.done_channel(job_id)) as heard:
                while True:
                    job = await self.get(job_id)
                    if job.status.is_final:
                        return job
                    with anyio.move_on_after(_REREAD_S):
                        await heard.receive()

    async def events(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """What happened to the job from its beginning, then what happens, to its outcome.

        Progress is told as it comes and not kept. After a lost connection everything that was kept comes exactly once.

        Raises:
            JobNotFound: there is no such job.
        """
        async with self._listener.subscribed(self.keys.events_channel(job_id)) as heard:
            last: str | None = None
            while True:
                kept = await self._kept_events(job_id)
                # Not by position: the list is capped, its oldest entries go.
                start = len(kept) - kept[::-1].index(last) if last in kept else 0
                for text in kept[start:]:
                    yield decode_event(text)
                last = kept[-1]
                if decode_event(last).is_final:
                    return
                while (event := await _next_progress(heard)) is not None:
                    yield event

    async def history(self, job_id: str) -> list[JobEvent]:
        """What was kept of what happened to the job.

        Raises:
            JobNotFound: there is no such job.
        """
        return [decode_event(text) for text in await self._kept_events(job_id)]

    async def _kept_events(self, job_id: str) -> list[str]:
        kept: list[str] = await self._repeated(lambda: self.client.lrange(self.keys.job_events(job_id), 0, -1))
        if not kept:
            raise JobNotFound(f"there is no job {job_id}")
        return kept

    # -- changing ------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str, *, reason: str = "") -> Job:
        """Cancel a job: at once while it waits; while it runs, its worker is asked to stop it.

        Raises:
            JobNotFound: there is no such job.
            IllegalTransition: it is in a final state.
        """
        code, status = await self._run("cancel", {**self._keeping, "id": job_id, "reason": reason})
        if int(code) == -1:
            raise JobNotFound(f"there is no job {job_id}")
        if int(code) == 0:
            raise IllegalTransition(f"job {job_id} is {status} already", details={"status": status})
        return await self.get(job_id)

    async def retry(self, job_id: str) -> Job:
        """Give a failed or cancelled job a new run, with its attempts counted from zero.

        Raises:
            JobNotFound: there is no such job, or its payload was forgotten.
            IllegalTransition: it is in another state.
        """
        code, status = await self._run("retry", {**self._keeping, "id": job_id})
        if int(code) == -1 or int(code) == -2:
            raise JobNotFound(f"there is no job {job_id} any more")
        if int(code) == 0 and status not in (JobState.PENDING, JobState.ACTIVE):
            raise IllegalTransition(f"job {job_id} is {status}: only failed and cancelled jobs are retried")
        return await self.get(job_id)

    # -- calling -------------------------------------------------------------------------------------------------

    async def _run(self, script: str, arguments: Mapping[str, str | int | float], rest: Sequence[Any] = ()) -> Any:
        return await self._repeated(lambda: load_script(script)(self.client, self.keys, arguments, rest))

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call, and call again while Redis is away: every call here may be repeated."""
        ends = anyio.current_time() + _RETRY_S
        delay_s = 0.05
        while True:
            try:
                return await call()
            except AWAY as error:
                if anyio.current_time() + delay_s > ends:
                    raise unavailable(self.url, error) from error
                log.warning("redis is away", url=shown_url(self.url), error=str(error), again_in_s=delay_s)
            await anyio.sleep(delay_s)
            delay_s = min(1.0, delay_s * 2)


async def find_redis(settings: Settings) -> str:
    """Where Redis is: ``HUB_REDIS_URL``, or else the embedded one that runs on this machine.

    Raises:
        ConfigError: nothing says where it is.
    """
    if settings.redis_url is not None:
        return settings.redis_url
    if (found := await running(settings.data_dir)) is not None:
        return found.url
    raise ConfigError(
        "nothing says where Redis is", hint="set HUB_REDIS_URL, or start everything on this machine with 'emp up'"
    )


async def _next_progress(heard: MemoryObjectReceiveStream[str]) -> JobEvent | None:
    """Progress that was just told; None when it is time to read what was kept."""
    with anyio.move_on_after(_REREAD_S):
        text = await heard.receive()
        if text and (event := decode_event(text)).name == "progress":
            return event
    return None


async def _close(client: Redis) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(2):
        await client.aclose()


def _submit_rest(spec: JobSpec, job_id: str, entry: EncodedSpec) -> list[str | int]:
    return [
        job_id,
        entry.lane,
        entry.requirement,
        spec.customer_id or "",
        spec.priority,
        to_us(spec.start_at) if spec.start_at else "",
        to_us(spec.deadline_at) if spec.deadline_at else "",
        spec.idempotency_key or "",
        entry.digest,
        entry.payload,
        len(entry.fields),
        *entry.fields,
    ]


def _new_job(job_id: str, spec: JobSpec, entry: EncodedSpec, now_us: float, settings: Settings) -> Job:
    """What `get` would give, without asking."""
    fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
    later = spec.start_at is not None and to_us(spec.start_at) > now_us
    fields["status"] = JobState.SCHEDULED if later else JobState.PENDING
    job = decode_job(job_id, fields, max_attempts=settings.max_attempts)
    return evolve(job, payload=spec.payload, created_at=from_us(now_us))
