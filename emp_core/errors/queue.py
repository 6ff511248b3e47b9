"""What the queue refuses."""

from emp_core.errors.base import EmpError

__all__ = [
    "DuplicateJob",
    "IllegalTransition",
    "JobNotFound",
    "LeaseLost",
    "NobodyServes",
    "PayloadTooLarge",
    "QueueError",
    "QueueFull",
    "QueueUnavailable",
    "WorkerNotFound",
]


class QueueError(EmpError):
    """The queue refused a call."""

    code = "queue"


class JobNotFound(QueueError):
    """No job has this id (it never existed, or its retention ended)."""

    code = "job_not_found"
    exit_code = 2


class DuplicateJob(QueueError):
    """A job with this id or idempotency key exists and has a different body."""

    code = "duplicate_job"


class PayloadTooLarge(QueueError):
    """The payload is larger than the queue takes."""

    code = "payload_too_large"
    exit_code = 2


class QueueFull(QueueError):
    """The queue holds as many waiting jobs as it may."""

    code = "queue_full"


class NobodyServes(QueueError):
    """No live worker serves what the job requires, and the submitter asked to be refused then."""

    code = "nobody_serves"
    exit_code = 2


class LeaseLost(QueueError):
    """The lease that this call speaks for is not the job's current one; its word does not count any more."""

    code = "lease_lost"


class IllegalTransition(QueueError):
    """The job is in a state that does not allow this."""

    code = "illegal_transition"


class WorkerNotFound(QueueError):
    """No worker of this name is alive."""

    code = "worker_not_found"
    exit_code = 2


class QueueUnavailable(QueueError):
    """Redis could not be reached, or went away in mid-call."""

    code = "redis_unavailable"
    exit_code = 3
