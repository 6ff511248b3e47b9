"""What goes wrong with services. The type decides what the worker does with the job."""

import math
from collections.abc import Mapping
from typing import Any

from emp_core.errors.base import EmpError

__all__ = [
    "AttemptTimeout",
    "AuthenticationFailed",
    "ConnectionLost",
    "ConnectorError",
    "ContentRefused",
    "DeadlineExceeded",
    "InvalidJob",
    "JobFailed",
    "MissingModel",
    "MissingNode",
    "NotHere",
    "NotRepeated",
    "OutOfMemory",
    "QuotaExhausted",
    "RateLimited",
    "ServiceBroken",
    "ServiceBusy",
    "ServiceUnavailable",
]

_RETRY_AFTER_MOST_S = 366 * 86400.0


class ConnectorError(EmpError):
    """A service failed. Connectors raise the narrowest type that is true: it decides what happens to the job."""

    code = "connector"


class InvalidJob(ConnectorError):
    """The job itself is wrong: running it again cannot help. Fails at once."""

    code = "invalid_job"
    exit_code = 2


class ContentRefused(InvalidJob):
    """The service refuses the content that it was given or asked for, by its own rules. Fails at once."""

    code = "content_refused"


class NotRepeated(ConnectorError):
    """What became of a run is not known, and it may have been done or paid for: it is not begun again. Fails at once."""

    code = "not_repeated"


class MissingModel(ConnectorError):
    """A model that the job needs is not on this worker. Released to another one."""

    code = "missing_model"


class MissingNode(ConnectorError):
    """A node class that the job needs is not on this worker. Released to another one."""

    code = "missing_node"


class NotHere(ConnectorError):
    """This worker cannot run the job for another reason; others may. Released to another one."""

    code = "not_here"


class ServiceBusy(ConnectorError):
    """The service takes no more work now.

    Args:
        retry_after_s: how long the service said to wait, in seconds, at most a year; None when it did not say, or what nobody
            can wait for: no number, less than nothing, for ever.
    """

    code = "service_busy"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.retry_after_s = _seconds(retry_after_s)


def _seconds(told: Any) -> float | None:
    """What connectors pass on as the service said it, be it a header's text."""
    try:
        seconds = float(told)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(seconds, _RETRY_AFTER_MOST_S) if math.isfinite(seconds) and seconds >= 0 else None


class RateLimited(ServiceBusy):
    """The service limits how often it may be asked."""

    code = "rate_limited"


class ServiceUnavailable(ConnectorError):
    """The service could not be reached, or answered that it cannot work now."""

    code = "service_unavailable"
    exit_code = 3


class ConnectionLost(ServiceUnavailable):
    """The service went away in mid-job."""

    code = "connection_lost"


class OutOfMemory(ConnectorError):
    """The service ran out of (GPU) memory."""

    code = "out_of_memory"


class ServiceBroken(ConnectorError):
    """The instance is damaged (a CUDA fault, a dead worker thread) and must not get jobs until it is healthy."""

    code = "service_broken"


class AuthenticationFailed(ConnectorError):
    """The service does not accept our credentials."""

    code = "authentication_failed"


class QuotaExhausted(ConnectorError):
    """The account behind the service has no money or quota left."""

    code = "quota_exhausted"


class JobFailed(ConnectorError):
    """The service ran the job and the job failed there."""

    code = "job_failed"


class AttemptTimeout(ConnectorError):
    """The attempt took longer than the job's ``timeout_s``."""

    code = "attempt_timeout"


class DeadlineExceeded(AttemptTimeout):
    """The job's own deadline passed: no further attempt can help."""

    code = "deadline_exceeded"
