"""What a connector is: the code that speaks to one service."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from emp_core.connectors.context import JobContext
from emp_core.connectors.payloads import read_payload
from emp_core.jobs.matching import ModelOffer
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.log.logger import Logger, get_logger

__all__ = ["Connector", "Health", "Refusal", "ServiceConfig", "ServiceInfo"]


@frozen
class ServiceConfig:
    """What a connector is told about the service that it speaks to.

    Attributes:
        name: the worker's name of the service (``comfyui``).
        environ: the environment's variables, for the connector's own settings class.
        options: the service's entry of the mapping, beyond what the core reads (``installer_config`` and others).
    """

    name: str
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    options: Mapping[str, Any] = field(factory=dict, repr=False)


@frozen
class Health:
    """Whether the service can take jobs now. ``reason`` says why not, in words for the operator."""

    ok: bool
    reason: str | None = None
    details: Mapping[str, Any] = field(factory=dict)


@frozen
class ServiceInfo:
    """What a service says of itself.

    Attributes:
        models: by name; None when it does not tell.
        details: anything else worth showing.
        capabilities: custom capabilities that jobs may ask for (node classes, formats …), in the shapes of
            `Requirements.capabilities`; None as a value: it does not tell, which counts as having all.
        other_models: what it costs to get a model that it has not; None: it cannot.
    """

    name: str
    version: str = ""
    models: Mapping[str, ModelOffer] | None = None
    details: Mapping[str, Any] = field(factory=dict)
    capabilities: Mapping[str, Any] = field(factory=dict)
    other_models: ModelOffer | None = None


@frozen
class Refusal:
    """Why this connector cannot process a job, before it begins. The job is released to another worker."""

    reason: str


class Connector(ABC):
    """The base of all connectors.

    The worker makes one per service, calls `connect` once, then `process_job` for up to `max_concurrent_jobs` jobs at
    a time, `check_health` now and then, and `disconnect` at the end. It may be connected again after that.

    A job is cancelled by cancelling the task that runs `process_job`: the connector stops the service's work, too, in a
    shielded block with a time limit, and lets the cancellation go on.

    Failures are raised, as the narrowest ConnectorError that is true. Everything else that is raised counts as a failure
    that another attempt may not have.
    """

    service_type: ClassVar[str]
    version: ClassVar[str] = "0"
    max_concurrent_jobs: int = 1
    """Jobs at once, when the operator does not say otherwise. May change while it is connected; looked at with its health."""
    payload_class: ClassVar[type | Mapping[str, type] | None] = None
    """An attrs class that payloads must fit, or one by what the job requires; None: anything goes.

    Payloads are checked at submit where this connector is installed, and before `process_job` in any case, which finds
    the object as ``context.payload``. `emp_core.connectors.payloads` says what such a class may hold.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.on_rest: Callable[[float, str], None] | None = None
        """The worker's ear for `rest`."""
        self.log: Logger = get_logger("emp.connector").bind(service=config.name)

    @classmethod
    def payload_class_of(cls, service_required: str) -> type | None:
        """The class that payloads of jobs for this service must fit."""
        kinds = cls.payload_class
        return kinds if kinds is None or isinstance(kinds, type) else kinds.get(service_required)

    @classmethod
    def payload_of(cls, job: Job | JobSpec) -> Any:
        """A job's payload as its payload class, or as it is where there is none.

        Raises:
            InvalidJob: it does not fit; lists every mistake with its path.
            PluginError: the payload class itself cannot be used.
        """
        kind = cls.payload_class_of(job.service_required)
        return job.payload if kind is None else read_payload(kind, job.payload)

    @classmethod
    def prepare_job(cls, spec: JobSpec) -> JobSpec:
        """Fill in what the user did not say, before the job goes into the queue: defaults, and what its payload requires.

        Called at submit, where this connector is installed, with a payload that fits the payload class. What the user said
        goes before what is found here: `JobSpec.with_requirements` sees to that for requirements. No I/O.

        Raises:
            InvalidJob: no worker could run this job.
        """
        return spec

    @classmethod
    def for_service(cls, config: ServiceConfig) -> "Connector":
        """The connector for a service as it is configured; what the worker calls.

        Override to choose another class: one that speaks to several servers, where the configuration names several.
        """
        return cls(config)

    def rest(self, seconds: float, reason: str) -> None:
        """Take no more jobs for a while: a rate limit is about to be met. Those that run go on; others go elsewhere or wait."""
        if self.on_rest is not None:
            self.on_rest(seconds, reason)

    async def connect(self) -> None:
        """Get ready. Raises ServiceUnavailable when the service is not there; the worker tries again later."""

    async def watch(self) -> None:
        """Look after something beside the jobs: run once it is connected, cancelled before `disconnect`. May end by itself."""

    async def disconnect(self) -> None:
        """Let go of everything that `connect` took."""

    @abstractmethod
    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Run a job to its end.

        Raises:
            ConnectorError: by type, what became of it.
        """

    async def check_health(self) -> Health:
        """Ask the service whether it can take jobs. Quick, and raises nothing that a service can cause."""
        return Health(ok=True)

    async def get_service_info(self) -> ServiceInfo:
        """What the service says of itself."""
        return ServiceInfo(name=self.config.name, version="")

    async def can_process_job(self, job: Job) -> Refusal | None:  # noqa: ARG002 - for those who override it
        """Look at a job before it begins; None: it can be processed."""
        return None

    async def cancel_job(self, job_id: str) -> None:
        """Told when a job is cancelled, just before its task is. Nothing by default: cancelling the task is enough."""
