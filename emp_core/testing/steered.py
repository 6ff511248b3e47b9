"""A connector that does what a test tells it, and tells the test what is done to it, so that no test has to sleep."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from attrs import define, evolve, field

from emp_core.connectors.base import Connector, Health, Refusal, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.plugins.hookspecs import Registration
from emp_core.plugins.loaded import Plugins, Registered
from emp_core.plugins.manager import load_plugins
from emp_core.services.resolve import ServiceBinding
from emp_core.services.schema import ServiceEntry, ServiceType

__all__ = ["CONNECTOR", "SteeredAttempt", "SteeredConnector", "Steering", "steered_binding", "steered_plugins"]

CONNECTOR = "SteeredConnector"
"""The name that `steered_plugins` registers the connector under."""

_WAIT_S = 20.0
"""Far longer than anything that a test waits for takes: a test that hangs fails and says where."""


@define(eq=False)
class SteeredAttempt:
    """A job that the connector was given and holds until the test decides.

    Attributes:
        context: what the connector may do: tell progress, save, checkpoint.
        ended: set when the connector has let go of the job, whichever way.
        cancelled: whether it was stopped from outside.
        linger: what the connector waits for, shielded, when it is stopped: a service that takes its time to stop.
    """

    job: Job
    context: JobContext
    ended: anyio.Event = field(factory=anyio.Event)
    cancelled: bool = False
    linger: anyio.Event | None = None
    _decided: anyio.Event = field(factory=anyio.Event)
    _answer: JobResult | BaseException = field(factory=JobResult)

    def complete(self, data: Mapping[str, Any] | None = None, *, result: JobResult | None = None) -> None:
        """Let the job go well."""
        self._answer = JobResult(data=data or {}) if result is None else result
        self._decided.set()

    def fail(self, error: BaseException) -> None:
        """Let the connector raise."""
        self._answer = error
        self._decided.set()

    async def until_ended(self) -> None:
        """Wait until the connector has let go of the job."""
        with anyio.fail_after(_WAIT_S):
            await self.ended.wait()

    async def _run(self) -> JobResult:
        try:
            await self._decided.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            if self.linger is not None:
                with anyio.CancelScope(shield=True):
                    await self.linger.wait()
            raise
        finally:
            self.ended.set()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


class Steering:
    """The test's end of a `SteeredConnector`.

    Attributes:
        answer: when set, answers jobs at once, instead of the test by hand.
        health: what the connector says of its health; a test may change it at any time.
        refusal: what it says to a job before it begins.
        connect_error: what `connect` raises, as long as it is set.
        info: what the service says of itself.
        cancels: ids of jobs that it was told to cancel.
        disconnect_error: what `disconnect` raises.
        watch: what it does beside the jobs.
        jobs_at_once: how many jobs it takes at once.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Job, JobContext], Awaitable[JobResult]] | None = None
        self.health = Health(ok=True)
        self.refusal: Refusal | None = None
        self.connect_error: Exception | None = None
        self.disconnect_error: Exception | None = None
        self.watch: Callable[[], Awaitable[None]] | None = None
        self.jobs_at_once = 4
        self.info = ServiceInfo("steered", "1")
        self.cancels: list[str] = []
        self.attempts: list[SteeredAttempt] = []
        self._not_taken: deque[SteeredAttempt] = deque()
        self._begun = anyio.Event()

    async def next(self) -> SteeredAttempt:
        """The next attempt that begins, or began since the last call."""
        with anyio.fail_after(_WAIT_S):
            while not self._not_taken:
                self._begun = anyio.Event()
                await self._begun.wait()
        return self._not_taken.popleft()

    def began(self, attempt: SteeredAttempt) -> None:
        """Told by the connector."""
        self.attempts.append(attempt)
        self._not_taken.append(attempt)
        self._begun.set()


class SteeredConnector(Connector):
    """Holds every job until the test decides; the test's `Steering` is its service's option ``steering``."""

    service_type = "steered"
    version = "1"

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self._steering: Steering = config.options["steering"]
        self.max_concurrent_jobs = self._steering.jobs_at_once

    async def connect(self) -> None:
        """As the test says."""
        if self._steering.connect_error is not None:
            raise self._steering.connect_error

    async def watch(self) -> None:
        """As the test says."""
        if self._steering.watch is not None:
            await self._steering.watch()

    async def disconnect(self) -> None:
        """As the test says."""
        if self._steering.disconnect_error is not None:
            raise self._steering.disconnect_error

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """As the test says."""
        if self._steering.answer is not None:
            return await self._steering.answer(job, context)
        attempt = SteeredAttempt(job, context)
        self._steering.began(attempt)
        return await attempt._run()

    async def check_health(self) -> Health:
        """As the test says."""
        self.max_concurrent_jobs = self._steering.jobs_at_once
        return self._steering.health

    async def get_service_info(self) -> ServiceInfo:
        """As the test says."""
        return self._steering.info

    async def can_process_job(self, job: Job) -> Refusal | None:  # noqa: ARG002 - the test decides for all jobs
        """As the test says."""
        return self._steering.refusal

    async def cancel_job(self, job_id: str) -> None:
        """Take note."""
        self._steering.cancels.append(job_id)


def steered_binding(steering: Steering, service: str = "steered", accepts: tuple[str, ...] = ()) -> ServiceBinding:
    """A service whose connector does what ``steering`` says; it takes jobs that require its own name unless told otherwise."""
    config = ServiceConfig(service, {}, {"steering": steering})
    entry = ServiceEntry(connector=CONNECTOR, type=ServiceType.EXTERNAL)
    return ServiceBinding(service, accepts or (service,), CONNECTOR, entry, config)


def steered_plugins() -> Plugins:
    """The installed plugins, and the connector of this module."""
    plugins = load_plugins()
    registration = Registration(CONNECTOR, f"{__name__}:{SteeredConnector.__name__}")
    return evolve(plugins, connectors={**plugins.connectors, CONNECTOR: Registered("emp_core.testing", registration)})
