"""`JobQueue`: what programs that submit jobs and look after them see of the queue."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio import to_thread
from attrs import frozen
from redis.asyncio import Redis

from emp_core.config import Settings
from emp_core.errors import ConfigError, IllegalTransition, JobNotFound, QueueError
from emp_core.jobs.ids import is_job_id
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.attempts import AttemptRecord, attempts_of
from emp_core.queue.calls import Calls
from emp_core.queue.changing import Changer
from emp_core.queue.connection import Limits, connect, wait_for_redis
from emp_core.queue.embedded import running
from emp_core.queue.events import JobEvent
from emp_core.queue.expecting import Expectations
from emp_core.queue.explain import Explanation, explain
from emp_core.queue.following import Follower
from emp_core.queue.health import QueueHealth, read_health
from emp_core.queue.keys import Keys
from emp_core.queue.listening import Listener
from emp_core.queue.machines import MachineView, read_machines
from emp_core.queue.reading import JobReader
from emp_core.queue.stream import EventReader
from emp_core.queue.submitting import Submitter
from emp_core.queue.workers import WorkerReader, WorkerView

if TYPE_CHECKING:
    from emp_core.plugins.preparing import Preparer

__all__ = ["JobQueue", "find_redis"]


@frozen
class _Parts:
    """What does the work while the queue is open."""

    calls: Calls
    reader: JobReader
    expectations: Expectations
    follower: Follower
    changer: Changer


class JobQueue:
    """The queue, for those who submit jobs and look after them.

    Use it as ``async with JobQueue.connect(url) as queue``. Calls are safe to repeat and are repeated for up to 10 s
    while Redis is away; then they raise QueueUnavailable.
    """

    def __init__(self, url: str | None, settings: Settings, *, prepare: "bool | Preparer" = True) -> None:
        self._url = url
        self._prepare = prepare
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self._workers = WorkerReader(self.keys)
        self._stack = AsyncExitStack()
        self._parts: _Parts | None = None
        self._submitter: Submitter | None = None
        self._listener = Listener(lambda: connect(self.url, settings), Limits.of(settings.lease_s).reply_s / 2)

    @classmethod
    def connect(
        cls, url: str | None = None, *, settings: Settings | None = None, prepare: "bool | Preparer" = True
    ) -> Self:
        """A queue at ``url``; at ``HUB_REDIS_URL`` when not given, or else at the embedded Redis that runs on this machine.

        Args:
            prepare: whether the installed plugins check and prepare jobs at submit; or a preparer of your own.
        """
        return cls(url, Settings.from_env() if settings is None else settings, prepare=prepare)

    async def __aenter__(self) -> Self:
        if self._url is None:
            self._url = await find_redis(self.settings)
        async with AsyncExitStack() as stack:
            client = connect(self.url, self.settings)
            stack.push_async_callback(_close, client)
            await wait_for_redis(client, self.url, limit_s=self.settings.redis_wait_s)
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(self._listener.run, name="emp listener")
            self._parts = self._made(Calls(client, self.url, self.settings))
            stack.callback(self._parts.expectations.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts = self._submitter = None
        # The listener is not told of the caller's error: its task group would wrap it in an ExceptionGroup.
        await self._stack.aclose()

    def _made(self, calls: Calls) -> _Parts:
        reader = JobReader(calls, max_attempts=self.settings.max_attempts)
        expectations = Expectations(self._listener, calls)
        follower = Follower(calls, reader, self._listener, expectations)
        return _Parts(calls, reader, expectations, follower, Changer(calls, self.settings))

    @property
    def url(self) -> str:
        """Where Redis is, once the queue is open."""
        return self._url or ""

    @property
    def client(self) -> Any:
        """The redis-py client, for what this class does not offer."""
        return self._open.calls.client

    @property
    def _open(self) -> _Parts:
        if self._parts is None:
            raise QueueError("the queue is not open", hint="use it as: async with JobQueue.connect(url) as queue")
        return self._parts

    # -- submitting ----------------------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec, *, strict: bool = False) -> Job:
        """Put a job into the queue. When this returns, the job is in Redis.

        Args:
            strict: refuse the job when no live worker can run it; otherwise that is only warned of.

        Raises:
            ConfigError: the spec cannot be used; lists every mistake.
            InvalidJob: a plugin that is installed here finds that the payload does not fit; lists every mistake.
            PayloadTooLarge, QueueFull, NobodyServes: refused.
            DuplicateJob: the id or the idempotency key belongs to a job with another body.
        """
        submitter = self._submitter or await self._made_submitter()
        return await submitter.submit(spec, strict=strict)

    async def submit_many(self, specs: Iterable[JobSpec], *, strict: bool = False) -> list[Job]:
        """Put many jobs into the queue, 500 per round trip, or fewer large ones. The jobs come back in the order of the specs.

        Refusals are raised for the first spec that was refused, after all were sent: what else was taken stays taken,
        and submitting the same specs with their ids or idempotency keys again is harmless. Nothing is sent where a spec cannot
        be used.

        Raises:
            The same as `submit`. What is wrong with specs is told of all of them, with their places, counted from 0:
            ``specs[3].priority: expected …``; ``details["spec"]`` is the place of the first.
        """
        submitter = self._submitter or await self._made_submitter()
        return await submitter.submit_many(specs, strict=strict)

    async def _made_submitter(self) -> Submitter:
        parts = self._open
        # In a thread: the first one imports what plugins are loaded with.
        preparer = await to_thread.run_sync(self._preparer)
        self._submitter = Submitter(
            parts.calls, self.settings, parts.expectations, get=self.get, workers=self.workers, preparer=preparer
        )
        return self._submitter

    def _preparer(self) -> "Preparer | None":
        if not isinstance(self._prepare, bool):
            return self._prepare
        from emp_core.plugins.preparing import installed_preparer

        return installed_preparer(self.settings) if self._prepare else None

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, job_id: str, *, payload: bool = True) -> Job:
        """The job as it is now.

        Raises:
            JobNotFound: there is no such job.
        """
        return await self._open.reader.get(_job_id(job_id), payload=payload)

    async def jobs(
        self, states: Sequence[JobState] = tuple(JobState), *, limit: int = 100, service: str | None = None
    ) -> list[Job]:
        """Jobs by state, the newest first within each, without their payloads."""
        found: list[Job] = []
        for state in states:
            async for job in self._open.reader.listed(state, service):
                if len(found) >= limit:
                    return found
                found.append(job)
        return found

    async def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        return await self._open.reader.counts()

    async def workers(self) -> list[WorkerView]:
        """The live workers and what they offer. One whose entry cannot be understood is warned of, and left out."""
        return await self._open.calls.repeated(lambda: self._workers.read(self.client))

    async def machines(self) -> list[MachineView]:
        """The machines that speak, and what they say of themselves."""
        return await self._open.calls.repeated(lambda: read_machines(self._open.calls.client, self.keys))

    async def explain(self, job_id: str) -> Explanation:
        """Why the job is where it is, and what each live worker says to it.

        Raises:
            JobNotFound: there is no such job.
        """
        return await explain(self._open.calls, await self.get(job_id, payload=False), await self.workers())

    async def health(self) -> QueueHealth:
        """Whether the queue gets on: what waits and runs longest, and what does not move though it should."""
        workers = len(await self.workers())
        return await read_health(self._open.calls, workers, self.explain, lease_s=self.settings.lease_s)

    # -- following -----------------------------------------------------------------------------------------------

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job, once it is in a final state.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            JobNotFound: there is no such job, or it was forgotten meanwhile.
            TimeoutError: it was not done in time; it goes on.
        """
        follower = self._open.follower
        if timeout is None:  # and no scope: after a pause it takes as long as a round trip
            return await follower.wait(_job_id(job_id))
        with anyio.fail_after(timeout):
            return await follower.wait(_job_id(job_id))

    def events(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """What happened to the job from its beginning, then what happens, to its outcome.

        Progress and text are told as they come and not kept, but for the text of a running job, which comes first. After a lost
        connection everything that was kept comes exactly once.

        Raises:
            JobNotFound: there is no such job.
        """
        return self._open.follower.events(_job_id(job_id))

    async def history(self, job_id: str) -> list[JobEvent]:
        """What was kept of what happened to the job.

        Raises:
            JobNotFound: there is no such job.
        """
        return await self._open.follower.history(_job_id(job_id))

    # -- changing ------------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str, *, reason: str = "") -> Job:
        """Cancel a job: at once while it waits; while it runs, its worker is asked to stop it.

        One that is cancelled already is left as it is: this call may be repeated.

        Args:
            reason: kept in the job's events; at most 500 characters.

        Raises:
            ConfigError: the reason cannot be kept.
            JobNotFound: there is no such job.
            IllegalTransition: it is completed or failed.
        """
        await self._open.changer.cancel(_job_id(job_id), reason)
        return await self.get(job_id)

    async def retry(self, job_id: str) -> Job:
        """Give a failed or cancelled job a new run, with its attempts counted from zero and no worker avoided.

        While it waits or runs after that, this call may be repeated: it changes nothing.

        Raises:
            JobNotFound: there is no such job, or its payload was forgotten.
            IllegalTransition: it is in another state.
        """
        job = await self.get(job_id, payload=False)
        self._open.expectations.forget(job_id)
        await self._open.changer.retry(job)
        return await self.get(job_id)

    async def set_priority(self, job_id: str, priority: int) -> Job:
        """Change the priority of a job that waits; it takes the place that it would have had with it from the beginning.

        Args:
            priority: 0 to 100, more is sooner.

        Raises:
            ConfigError: no such priority.
            JobNotFound: there is no such job.
            IllegalTransition: it does not wait any more.
        """
        await self._open.changer.set_priority(_job_id(job_id), priority)
        return await self.get(job_id)

    async def retry_failed(
        self,
        *,
        service: str | None = None,
        code: str | None = None,
        label: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> list[Job]:
        """Give failed jobs a new run: those that fit every filter that is given, the newest first.

        Args:
            code: the error's code.
            label: a label's name and value.
            limit: at most so many.
        """
        fitting: dict[str, None] = {}
        async for job in self._open.reader.listed(JobState.FAILED, service):
            if len(fitting) >= limit:
                break
            fits_label = label is None or job.labels.get(label[0]) == label[1]
            if fits_label and code in (None, job.error.code if job.error else ""):
                fitting[job.id] = None
        retried: list[Job] = []
        for job_id in fitting:
            # One that is gone meanwhile, or that somebody else retried, is nobody's mistake.
            with suppress(JobNotFound, IllegalTransition):
                retried.append(await self.retry(job_id))
        return retried

    async def drain_worker(self, worker_id: str) -> None:
        """Tell a worker to take no more jobs, to let those end that it has, and then to end itself, as after SIGTERM.

        Returns when the worker has been told; telling it again changes nothing.

        Args:
            worker_id: its id in `workers`: ``WORKER_ID@MACHINE_ID``.

        Raises:
            WorkerNotFound: no such worker is alive.
        """
        await self._open.changer.drain_worker(worker_id)

    # -- looking back --------------------------------------------------------------------------------------------

    async def attempts(self, job_id: str) -> list[AttemptRecord]:
        """What each attempt of the job took, and how it ended.

        Raises:
            JobNotFound: there is no such job.
        """
        return attempts_of(await self.history(job_id))

    def event_reader(self, group: str, name: str, *, start: str = "0") -> EventReader:
        """A reader of the events of all jobs, for a group of readers that share the work.

        Args:
            group: shared by readers that do the same work (webhooks, metrics).
            name: of this reader within the group.
            start: where a new group begins: ``0`` for what is kept, ``$`` for what comes, the position of a batch for what
                came after it.

        Raises:
            ConfigError: one of the texts cannot be used; tells every mistake.
        """
        return EventReader(self._open.calls, group, name, start=start)


def _job_id(text: str) -> str:
    """What may be a job's id. Anything else could name another key. Raises JobNotFound."""
    if not is_job_id(text):
        raise JobNotFound(f"there is no job {text!r}", hint="ids are 1 to 64 letters, digits, '-', '_' or '.'")
    return text


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


async def _close(client: Redis) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(2):
        await client.aclose()
