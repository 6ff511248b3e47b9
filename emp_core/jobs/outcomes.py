"""What an attempt decided, as values. Only failures raise; how a failure becomes an outcome is `emp_core.jobs.retry`."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from emp_core.jobs.model import Artifact, JobError

__all__ = ["Cancelled", "Completed", "Failed", "JobResult", "Outcome", "Release", "Retry"]


@frozen
class JobResult:
    """What a connector gives back for a job that went well.

    Attributes:
        data: what the service answered, JSON-compatible.
        artifacts: the stored outputs.
        usage: tokens, durations: what the attempt cost. ``loading_ms`` (time to get ready) and ``cache_hits`` (what did not
            have to be done again) go into the attempt's record, too.
    """

    data: Mapping[str, Any] = field(factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    usage: Mapping[str, Any] = field(factory=dict)


@frozen
class Completed:
    """The job is done."""

    result: JobResult


@frozen
class Retry:
    """The attempt failed; another may follow after ``delay_s``, elsewhere if ``avoid_worker``."""

    error: JobError
    delay_s: float
    avoid_worker: bool = True


@frozen
class Failed:
    """The job failed for good."""

    error: JobError


@frozen
class Release:
    """The attempt does not count: back to its place. ``avoid_worker``: this worker cannot run it."""

    error: JobError | None = None
    avoid_worker: bool = False


@frozen
class Cancelled:
    """Somebody cancelled the job, and its work has stopped."""


Outcome = Completed | Retry | Failed | Release | Cancelled
