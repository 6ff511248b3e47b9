"""A job: what is asked for (`JobSpec`), and what the queue knows of it (`Job`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

from emp_core.jobs.requirements import NO_REQUIREMENTS, Requirement, Requirements
from emp_core.jobs.states import JobState
from emp_core.log.redaction import without_secrets

__all__ = ["DEFAULT_PRIORITY", "Artifact", "Destination", "Job", "JobError", "JobSpec"]

DEFAULT_PRIORITY = 50


@frozen
class Destination:
    """Where a job's outputs go: the job's ``ctx``.

    Attributes:
        storage: ``{"store": NAME}`` for one of the stores that the workers know by name, or a store of the job's own in
            Azure: ``bucket``, ``accountName``, ``accountKey``, and ``endpoint`` and ``cdnUrl`` where they are needed. The
            key is never shown. None: the workers' own store.
        prefix: a folder within the store.
        filename: the outputs' base name; each keeps its own suffix.
        retention: the retention class of the outputs, which says when ``emp artifacts prune`` deletes them.
    """

    storage: Mapping[str, str] | None = field(default=None, repr=False)
    prefix: str | None = None
    filename: str | None = None
    retention: str | None = None


@frozen
class Artifact:
    """A stored output, known by reference.

    Attributes:
        name: the file's name as the service gave it, without folders.
        url: where it is stored.
        media_type: its MIME type.
        size_bytes: its length.
        sha256: its checksum, in hexadecimal.
        metadata: what the connector knows of it (node, subfolder, kind).
    """

    name: str
    url: str
    media_type: str
    size_bytes: int
    sha256: str
    metadata: Mapping[str, Any] = field(factory=dict)


def _repr(value: Any) -> str:
    return repr(without_secrets(value, is_json=False))


def _requirements(given: Requirements | Mapping[str, Any] | None) -> Requirements:
    return given if isinstance(given, Requirements) else Requirements.from_dict(given)


@frozen
class JobSpec:
    """A job as it is submitted.

    Attributes:
        service_required: the service that must run it (``comfyui``).
        payload: the data for the service, JSON-compatible.
        type: what kind of job it is; the service's name when not given.
        id: an id of the submitter's own; made by the queue when not given. The same id with the same body gives the first
            job again.
        priority: 0 to 100, more is sooner; each point is a head start of ``EMP_PRIORITY_STEP`` seconds.
        ctx: where its outputs go.
        requirements: what it needs of the worker.
        customer_id: whose job it is, for fair shares, caps and isolation.
        estimated_duration_s: how long it is expected to run.
        max_attempts: attempts before it fails; the queue's default when not given.
        timeout_s: how long one attempt may take.
        start_at, deadline_at: aware datetimes; not before, and failed when not begun or done by then.
        idempotency_key: submitting again under the same key gives the first job again; DuplicateJob if the body differs.
        labels: free texts to find jobs by: at most 50, with names of 1 to 128 characters and values of at most 512.
        traceparent: W3C trace context to go on from.
    """

    service_required: str
    payload: Any = field(factory=dict, repr=_repr)
    type: str | None = None
    id: str | None = None
    priority: int = DEFAULT_PRIORITY
    ctx: Destination | None = None
    requirements: Requirements = field(default=NO_REQUIREMENTS, converter=_requirements)
    customer_id: str | None = None
    user_tier: str | None = None
    region: str | None = None
    pool: str | None = None
    estimated_duration_s: float | None = None
    max_attempts: int | None = None
    timeout_s: float | None = None
    deadline_at: datetime | None = None
    start_at: datetime | None = None
    idempotency_key: str | None = None
    labels: Mapping[str, str] = field(factory=dict, repr=_repr)
    traceparent: str | None = None

    def with_requirements(self, found: Requirements) -> "JobSpec":
        """The spec with requirements that were found in its payload. What the submitter said goes before them."""
        return evolve(self, requirements=self.requirements.over(found))

    @property
    def requirement(self) -> Requirement:
        """All that decides which workers may run it."""
        if self.requirements is NO_REQUIREMENTS and self.region is None and self.pool is None:
            return Requirement.plain(self.service_required)
        isolated = self.requirements.isolation != "none"
        return Requirement(
            service=self.service_required,
            asked=self.requirements,
            pool=self.pool,
            region=self.region,
            customer=self.customer_id if isolated else None,
        )


@frozen
class JobError:
    """Why a job failed, or its last attempt did.

    Attributes:
        code: stable, from the error's type.
        retryable: whether another attempt could have gone better.
        details: facts for programs.
    """

    code: str
    message: str
    retryable: bool = False
    details: Mapping[str, Any] = field(factory=dict)


# Not frozen: then it would be made in 19 µs instead of 8 by a process that slept, as a worker between two jobs does.
@define
class Job:
    """A job as the queue knew it when it was read: what is changed here changes nothing there. Times are aware datetimes in
    UTC, of Redis's clock.

    Attributes:
        payload: None in listings, which never carry it.
        requirement: all that decides which workers may run it, with the workers that turned out not to.
        attempt: attempts begun; crashes: those that ended by losing their worker.
        returned: how often it came back without its attempt counting: given back by a worker, or retried after its end.
        progress: 0 to 100.
        service_job_id: the service's own id of the attempt's run, once known.
        unreadable: what of it could not be read and was left out, each with its name and why: a newer version may have written
            it, or somebody with a client of their own. A worker fails such a job.
    """

    id: str
    service_required: str
    type: str
    status: JobState
    priority: int = DEFAULT_PRIORITY
    payload: Any = field(default=None, repr=False)
    ctx: Destination | None = None
    requirement: Requirement = field(kw_only=True)
    customer_id: str | None = None
    user_tier: str | None = None
    region: str | None = None
    pool: str | None = None
    estimated_duration_s: float | None = None
    max_attempts: int = 1
    timeout_s: float | None = None
    labels: Mapping[str, str] = field(factory=dict, repr=_repr)
    traceparent: str | None = None
    idempotency_key: str | None = None
    created_at: datetime | None = None
    start_at: datetime | None = None
    deadline_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    crashes: int = 0
    returned: int = 0
    worker_id: str | None = None
    machine_id: str | None = None
    progress: float = 0.0
    message: str | None = None
    cancel_requested: bool = False
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    error: JobError | None = None
    service_job_id: str | None = None
    usage: Mapping[str, Any] | None = field(default=None, repr=_repr)
    unreadable: tuple[str, ...] = ()

    @property
    def requirements(self) -> Requirements:
        """What was asked of the worker, beyond the service."""
        return self.requirement.asked

    @property
    def lane(self) -> str:
        """The lane that it waits in."""
        return self.requirement.lane
