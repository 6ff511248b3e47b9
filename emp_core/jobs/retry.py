"""From a failure to an outcome: by the error's type, never by its text."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from tenacity import RetryCallState, wait_exponential_jitter

from emp_core.errors import (
    AddressRefused,
    AuthenticationFailed,
    DeadlineExceeded,
    EmpError,
    InputError,
    InputUnavailable,
    InvalidJob,
    MissingModel,
    MissingNode,
    NotHere,
    NotRepeated,
    OutOfMemory,
    QuotaExhausted,
    ServiceBusy,
    StorageUnavailable,
    UnsafeName,
)
from emp_core.jobs.codec import dumps, loads, told
from emp_core.jobs.model import JobError
from emp_core.jobs.outcomes import Failed, Release, Retry
from emp_core.log.redaction import without_secrets

__all__ = ["Backoff", "job_error", "outcome_of"]

_PERMANENT = (InvalidJob, NotRepeated, InputError, AddressRefused, UnsafeName, DeadlineExceeded)
_ELSEWHERE = (MissingModel, MissingNode, NotHere)
_PAUSES_SERVICE = (AuthenticationFailed, QuotaExhausted, StorageUnavailable)
_DETAILS_MAX = 32_000
"""Characters of JSON."""


@frozen
class Backoff:
    """Exponential delays with jitter, in seconds: tenacity's formula, without its loop."""

    base_s: float = 2.0
    max_s: float = 300.0

    def delay_s(self, attempt: int) -> float:
        """The delay after ``attempt`` attempts (1 or more)."""
        if self.base_s <= 0:
            return 0.0
        # In units of the first delay: tenacity's name for it differs from version to version.
        wait = wait_exponential_jitter(max=self.max_s / self.base_s, jitter=min(1.0, self.max_s / self.base_s))
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # read for its number only
        state.attempt_number = max(1, attempt)
        return min(float(wait(state)) * self.base_s, self.max_s)


def job_error(error: BaseException, *, retryable: bool) -> JobError:
    """The error as it stands in the job, whatever a connector has put into it: without secrets, and without its hint, which is
    for our own log.
    """
    if isinstance(error, EmpError):
        return JobError(error.code, told(error.message), retryable, _details(error.details))
    return JobError("unexpected", told(f"{type(error).__name__}: {error}"), retryable)


def _details(details: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        text = dumps(details)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return {"details": told(repr(without_secrets(details, is_json=False)))}
    hidden: dict[str, Any] = without_secrets(loads(text))
    return hidden if len(text) <= _DETAILS_MAX else {"details": told(repr(hidden))}


def outcome_of(error: Exception, *, attempt: int, max_attempts: int, backoff: Backoff) -> Failed | Release | Retry:
    """What becomes of a job whose attempt raised ``error``.

    Args:
        attempt: the number of the attempt that failed, from 1.
        max_attempts: attempts that the job has; the last one's failure is final.
    """
    match error:
        case _ if isinstance(error, _PERMANENT) and not isinstance(error, InputUnavailable):
            return Failed(job_error(error, retryable=False))
        case _ if isinstance(error, _ELSEWHERE):
            return Release(job_error(error, retryable=True), avoid_worker=True)
        case _ if isinstance(error, _PAUSES_SERVICE):
            # The service is withdrawn here until it works again: no reason to keep this job away for good.
            return Release(job_error(error, retryable=True))
        case _ if attempt >= max_attempts:
            return Failed(job_error(error, retryable=True))
        case ServiceBusy(retry_after_s=told):
            delay_s = max(told or 0.0, backoff.delay_s(attempt))
            return Retry(job_error(error, retryable=True), delay_s, avoid_worker=False)
        case OutOfMemory():
            return Retry(job_error(error, retryable=True), 0.0, avoid_worker=attempt > 1)
    return Retry(job_error(error, retryable=True), backoff.delay_s(attempt))
