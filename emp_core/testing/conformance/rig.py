"""A connector with a worker's place around it: jobs are run as a worker runs them, and all that they do is watched."""

import json
import math
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from emp_core.config import Settings
from emp_core.connectors.base import Connector
from emp_core.connectors.context import JobContext, Preview
from emp_core.errors import ConnectorError, EmpError, NotHere
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.model import Artifact, Job
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore
from emp_core.testing.time_lapse import TimeLapse

__all__ = ["PATIENCE_S", "Rig", "RunningJob", "WatchedContext", "blame", "wrong_progress"]

PATIENCE_S = 30.0
"""Far longer than anything takes that works."""
_AT_ONCE_S = 0.25


class WatchedContext(JobContext):
    """A job's context that takes note of all that the connector does with it.

    Attributes:
        told: fractions, as the connector told them.
        saved: artifacts, as the store keeps them.
        checkpoints: the service's ids of the run.
        pieces: the text that was put out while it was made.
        late: what was done after the job was over.
    """

    def __init__(
        self, job: Job, payload: Any, store: ArtifactStore, inputs: InputTaking, deadline: datetime | None
    ) -> None:
        self.files = inputs.of(job)
        super().__init__(
            job,
            store=store,
            report=self._take_note,
            save_checkpoint=self._keep,
            inputs=self.files,
            deadline=deadline,
            payload=payload,
        )
        self.told: list[float] = []
        self.messages: list[str] = []
        self.saved: list[Artifact] = []
        self.checkpoints: list[str] = []
        self.pieces: list[str] = []
        self.late: list[str] = []
        self.began_to_tell = anyio.Event()
        self.is_over = False

    async def progress(self, fraction: float, message: str | None = None, preview: Preview | None = None) -> None:
        self._note("progress")
        self.told.append(fraction)
        await super().progress(fraction, message, preview)

    async def save(self, *args: Any, **kwargs: Any) -> Artifact:
        self._note("save")
        artifact = await super().save(*args, **kwargs)
        self.saved.append(artifact)
        return artifact

    async def checkpoint(self, service_job_id: str, **how: Any) -> None:
        self._note("checkpoint")
        await super().checkpoint(service_job_id, **how)

    async def text(self, piece: str) -> None:
        self._note("text")
        self.pieces.append(piece)
        await super().text(piece)

    async def warn(self, message: str) -> None:
        self._note("warn")
        self.messages.append(message)
        await super().warn(message)

    def _take_note(self, percent: float, message: str | None, preview: Preview | None) -> None:
        del percent, preview
        self.messages += [message] if message else []
        self.began_to_tell.set()

    async def _keep(self, service_job_id: str) -> None:
        self.checkpoints.append(service_job_id)

    def _note(self, what: str) -> None:
        if self.is_over:
            self.late.append(what)


@define(eq=False)
class RunningJob:
    """A job on its way through the connector.

    Attributes:
        result: what came of it; None when it did not end well.
        error: what it raised, if it raised.
        let_go: whether the connector let a cancellation go on; None: it was not cancelled, or ended before.
    """

    context: WatchedContext
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    ended: anyio.Event = field(factory=anyio.Event)
    result: JobResult | None = None
    error: Exception | None = None
    let_go: bool | None = None

    async def until_ended(self, within_s: float = PATIENCE_S) -> None:
        """Wait until the connector has let go of the job. TimeoutError: it does not."""
        with anyio.fail_after(within_s):
            await self.ended.wait()

    async def until_ended_in_time_lapse(self, most_s: float) -> float:
        """As `until_ended`, with time made to pass faster when it does not end at once; gives how many seconds passed."""
        with anyio.move_on_after(_AT_ONCE_S):
            await self.ended.wait()
        return await TimeLapse.here().until(self.ended.is_set, most_s=most_s)

    async def outcome(self, within_s: float = PATIENCE_S) -> JobResult:
        """What came of it; raises what it raised."""
        await self.until_ended(within_s)
        if self.error is not None:
            raise self.error
        assert self.result is not None, "the job was cancelled, and nobody asked for that"
        return self.result

    async def run(self, connector: Connector) -> None:
        """Run it as a worker does."""
        try:
            with self.scope:
                await self._process(connector)
        except Exception as error:
            self.error = _the_failure(error)
        finally:
            self.context.is_over = True
            self.ended.set()

    async def _process(self, connector: Connector) -> None:
        try:
            job = self.context.job
            if refusal := await connector.can_process_job(job):
                raise NotHere(refusal.reason)
            try:
                self.result = await connector.process_job(job, self.context)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.context.files.aclose()
        except anyio.get_cancelled_exc_class():
            self.let_go = True
            raise
        finally:
            if self.let_go is None and self.scope.cancel_called:
                self.let_go = False


@define(eq=False)
class Rig:
    """A connected connector, and jobs for it.

    Attributes:
        jobs: all that were begun.
    """

    connector: Connector
    service_required: str
    store: ArtifactStore
    inputs: InputTaking
    group: TaskGroup
    jobs: list[RunningJob] = field(factory=list)

    @classmethod
    def at(cls, folder: Path, connector: Connector, service_required: str, group: TaskGroup) -> Self:
        """A rig whose files lie in a folder."""
        store = LocalStore(folder / "artifacts")
        inputs = InputTaking.from_settings(Settings(data_dir=folder), store=store)
        return cls(connector, service_required, store, inputs, group)

    def begin(
        self,
        payload: Any,
        *,
        connector: Connector | None = None,
        attempt: int = 1,
        service_job_id: str | None = None,
        deadline: datetime | None = None,
    ) -> RunningJob:
        """Begin a job. Its payload goes through JSON, as on its way through the queue.

        Raises:
            InvalidJob: the payload does not fit the connector's payload class.
        """
        running = connector or self.connector
        job = Job(
            f"conformance-{len(self.jobs) + 1}",
            self.service_required,
            self.service_required,
            JobState.ACTIVE,
            payload=json.loads(json.dumps(payload)),
            attempt=attempt,
            max_attempts=max(3, attempt),
            service_job_id=service_job_id,
            deadline_at=deadline,
            requirement=Requirement(self.service_required),
        )
        begun = RunningJob(WatchedContext(job, running.payload_of(job), self.store, self.inputs, deadline))
        self.jobs.append(begun)
        self.group.start_soon(begun.run, running)
        return begun

    async def run(self, payload: Any, **how: Any) -> RunningJob:
        """Run a job to its end. It went well, or its ``error`` says why not."""
        begun = self.begin(payload, **how)
        await begun.until_ended()
        return begun

    async def fingerprint(self, job: RunningJob) -> Any:
        """What tells the outcome of one payload from that of another: the result, and what its artifacts hold."""
        result = await job.outcome()
        files = sorted((PurePosixPath(artifact.name).name, artifact.sha256) for artifact in result.artifacts)
        return {"data": json.loads(json.dumps(dict(result.data))), "files": files}


def wrong_progress(told: list[float]) -> str | None:
    """What is wrong with the fractions that a connector told, in words."""
    for before, after in zip([0.0, *told], told, strict=False):
        if not math.isfinite(after):
            return f"{after!r} was told"
        if not 0.0 <= after <= 1.0:
            return f"{after:g} was told, which is not from 0 to 1"
        if after < before:
            return f"{after:g} was told after {before:g}"
    return None


def blame(error: Exception) -> str:
    """An error in words, for a rule that did not expect it."""
    code = f" ({error.code})" if isinstance(error, EmpError) else ""
    return f"{type(error).__name__}{code}: {error}"


def _the_failure(error: Exception) -> Exception:
    """As workers do, the one failure that decides, out of a group that a task group may raise."""
    leaves = list(_leaves(error))
    return next((leaf for leaf in leaves if isinstance(leaf, ConnectorError)), leaves[0])


def _leaves(error: Exception) -> Any:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
