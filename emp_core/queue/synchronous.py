"""`SyncJobQueue`: the queue for scripts and notebooks, without ``await``."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.from_thread import BlockingPortal

from emp_core.config import Settings
from emp_core.errors import QueueError
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.attempts import AttemptRecord
from emp_core.queue.events import JobEvent
from emp_core.queue.explain import Explanation
from emp_core.queue.health import QueueHealth
from emp_core.queue.machines import MachineView
from emp_core.queue.queue import JobQueue
from emp_core.queue.workers import WorkerView

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from emp_core.plugins.preparing import Preparer

__all__ = ["SyncJobQueue"]


class SyncJobQueue:
    """The same as `JobQueue`, for code that is not asynchronous. Its event loop runs in a thread of its own.

    ``with SyncJobQueue.connect(url) as queue: job = queue.wait(queue.submit(spec).id)``. Every method does what the method
    of the same name of `JobQueue` does, and raises the same. It may be used from several threads, but not by a forked child,
    where that thread is not: a child opens a queue of its own.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._loop: _Loop | None = None

    @classmethod
    def connect(
        cls, url: str | None = None, *, settings: Settings | None = None, prepare: "bool | Preparer" = True
    ) -> Self:
        """A queue at ``url``, or where `JobQueue.connect` would find one; ``prepare`` as there."""
        return cls(JobQueue.connect(url, settings=settings, prepare=prepare))

    def __enter__(self) -> Self:
        self._loop = _Loop.holding(self._queue)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and loop.is_here:
            loop.close(kind, error, trace)

    def _call(self, call: Callable[[], Any]) -> Any:
        if self._loop is None:
            raise QueueError("the queue is not open", hint="use it as: with SyncJobQueue.connect(url) as queue")
        if not self._loop.is_here:
            raise QueueError(
                "the queue was opened by the process that this one was forked from",
                hint="open one in this process: with SyncJobQueue.connect(url) as queue",
            )
        return self._loop.portal.call(call)

    def submit(self, spec: JobSpec, *, strict: bool = False) -> Job:
        """Put a job into the queue."""
        job: Job = self._call(lambda: self._queue.submit(spec, strict=strict))
        return job

    def submit_many(self, specs: Iterable[JobSpec], *, strict: bool = False) -> list[Job]:
        """Put many jobs into the queue."""
        # Here, and not in the loop's thread: what makes them may use the queue.
        listed = list(specs)
        jobs: list[Job] = self._call(lambda: self._queue.submit_many(listed, strict=strict))
        return jobs

    def get(self, job_id: str, *, payload: bool = True) -> Job:
        """The job as it is now."""
        job: Job = self._call(lambda: self._queue.get(job_id, payload=payload))
        return job

    def jobs(
        self, states: Sequence[JobState] = tuple(JobState), *, limit: int = 100, service: str | None = None
    ) -> list[Job]:
        """Jobs by state, the newest first within each."""
        jobs: list[Job] = self._call(lambda: self._queue.jobs(states, limit=limit, service=service))
        return jobs

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        counts: dict[JobState, int] = self._call(self._queue.counts)
        return counts

    def workers(self) -> list[WorkerView]:
        """The live workers and what they offer."""
        workers: list[WorkerView] = self._call(self._queue.workers)
        return workers

    def machines(self) -> list[MachineView]:
        """The machines that speak, and what they say of themselves."""
        machines: list[MachineView] = self._call(self._queue.machines)
        return machines

    def explain(self, job_id: str) -> Explanation:
        """Why the job is where it is."""
        explanation: Explanation = self._call(lambda: self._queue.explain(job_id))
        return explanation

    def health(self) -> QueueHealth:
        """Whether the queue gets on."""
        health: QueueHealth = self._call(self._queue.health)
        return health

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job, once it is in a final state."""
        job: Job = self._call(lambda: self._queue.wait(job_id, timeout=timeout))
        return job

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """What happened to the job from its beginning, then what happens, to its outcome."""
        following = self._queue.events(job_id)
        try:
            while True:
                event = self._call(lambda: anext(following, None))
                if event is None:
                    return
                yield event
        finally:
            if self._loop is not None and self._loop.is_here:
                self._call(following.aclose)

    def history(self, job_id: str) -> list[JobEvent]:
        """What was kept of what happened to the job."""
        events: list[JobEvent] = self._call(lambda: self._queue.history(job_id))
        return events

    def cancel(self, job_id: str, *, reason: str = "") -> Job:
        """Cancel a job."""
        job: Job = self._call(lambda: self._queue.cancel(job_id, reason=reason))
        return job

    def retry(self, job_id: str) -> Job:
        """Give a failed or cancelled job a new run."""
        job: Job = self._call(lambda: self._queue.retry(job_id))
        return job

    def set_priority(self, job_id: str, priority: int) -> Job:
        """Change the priority of a job that waits."""
        job: Job = self._call(lambda: self._queue.set_priority(job_id, priority))
        return job

    def retry_failed(
        self,
        *,
        service: str | None = None,
        code: str | None = None,
        label: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> list[Job]:
        """Give failed jobs a new run."""
        jobs: list[Job] = self._call(
            lambda: self._queue.retry_failed(service=service, code=code, label=label, limit=limit)
        )
        return jobs

    def drain_worker(self, worker_id: str) -> None:
        """Tell a worker to take no more jobs, and to end when those that it has are done."""
        self._call(lambda: self._queue.drain_worker(worker_id))

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """What each attempt of the job took, and how it ended."""
        attempts: list[AttemptRecord] = self._call(lambda: self._queue.attempts(job_id))
        return attempts


class _Loop:
    """An event loop in a thread of its own, which holds the queue open.

    Nothing is asked of it when it is collected: in a forked child there is no such thread, and it would never answer.
    """

    def __init__(self) -> None:
        made: Future[BlockingPortal] = Future()
        self._process = os.getpid()
        self._thread = threading.Thread(target=_run, args=(made,), name="emp queue", daemon=True)
        self._thread.start()
        self.portal = made.result()
        self._held: AbstractContextManager[JobQueue] | None = None

    @classmethod
    def holding(cls, queue: JobQueue) -> Self:
        """A loop in which the queue is open."""
        loop = cls()
        held = loop.portal.wrap_async_context_manager(queue)
        try:
            held.__enter__()
        except BaseException:
            loop._end(cancel=True)
            raise
        loop._held = held
        return loop

    @property
    def is_here(self) -> bool:
        """Whether this process has its thread."""
        return os.getpid() == self._process

    def close(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the queue, and end the thread."""
        try:
            if self._held is not None:
                self._held.__exit__(kind, error, trace)
        finally:
            self._end(cancel=kind is not None)

    def _end(self, *, cancel: bool) -> None:
        self.portal.call(self.portal.stop, cancel)
        self._thread.join()


def _run(made: "Future[BlockingPortal]") -> None:
    async def serve() -> None:
        async with BlockingPortal() as portal:
            made.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as error:
        if made.done():
            raise
        made.set_exception(error)
