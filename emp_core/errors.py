"""Every error that emp-core raises.

    EmpError
    ├── ConfigError                a setting, the service mapping or an argument is wrong
    ├── PluginError                a plugin cannot be used
    ├── InstallError               a service could not be installed, or its installation does not work
    ├── QueueError                 the queue refused
    │   ├── JobNotFound
    │   ├── DuplicateJob           same id or idempotency key, different body
    │   ├── PayloadTooLarge
    │   ├── QueueFull
    │   ├── NobodyServes           refused because no worker could ever run it (strict submit)
    │   ├── LeaseLost              the lease that this call speaks for is not the current one
    │   ├── IllegalTransition      the job's state does not allow this
    │   └── QueueUnavailable       Redis could not be reached
    ├── StorageError               an artifact could not be stored or read
    │   ├── ArtifactNotFound
    │   ├── ArtifactExists
    │   ├── UnsafeName             a name that tries to leave its folder
    │   ├── CannotSign             this store gives no signed addresses
    │   └── StorageUnavailable     the store cannot be reached or written now
    │       └── StorageRefused     it will not have us: wrong key, no rights, no such container
    ├── AddressRefused             an address from outside leads where it may not lead
    ├── InputError                 an input of a job cannot be used, or may not be
    │   └── InputUnavailable       it could not be fetched now; retry while attempts last
    └── ConnectorError             a service failed; the type decides what the worker does
        ├── InvalidJob             fail at once
        │   └── ContentRefused     fail at once: the service will not have, or not give, such content
        ├── NotRepeated            fail at once: it may have been done, or paid for, already
        ├── MissingModel           release to another worker
        ├── MissingNode            release to another worker
        ├── NotHere                release to another worker
        ├── ServiceBusy            retry later
        │   └── RateLimited        retry after the time that the service told
        ├── ServiceUnavailable     retry elsewhere, counts for the breaker
        │   └── ConnectionLost     the same, in mid-job
        ├── OutOfMemory            free, retry once here, then elsewhere
        ├── ServiceBroken          retry elsewhere, take the instance out
        ├── AuthenticationFailed   pause the service here, tell the operator
        ├── QuotaExhausted         pause the service here, tell the operator
        ├── JobFailed              the service ran the job and it failed; retry while attempts last
        └── AttemptTimeout         the attempt took longer than the job allows
            └── DeadlineExceeded   the job's deadline passed: fail at once

Each type carries a stable ``code`` (safe to match on, also over the wire), a message that says what happened to
what, and where it helps a ``hint`` that says what to do next.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AddressRefused",
    "ArtifactExists",
    "ArtifactNotFound",
    "AttemptTimeout",
    "AuthenticationFailed",
    "CannotSign",
    "ConfigError",
    "ConnectionLost",
    "ConnectorError",
    "ContentRefused",
    "DeadlineExceeded",
    "DuplicateJob",
    "EmpError",
    "IllegalTransition",
    "InputError",
    "InputUnavailable",
    "InstallError",
    "InvalidJob",
    "JobFailed",
    "JobNotFound",
    "LeaseLost",
    "MissingModel",
    "MissingNode",
    "NobodyServes",
    "NotHere",
    "NotRepeated",
    "OutOfMemory",
    "PayloadTooLarge",
    "PluginError",
    "QueueError",
    "QueueFull",
    "QueueUnavailable",
    "QuotaExhausted",
    "RateLimited",
    "ServiceBroken",
    "ServiceBusy",
    "ServiceUnavailable",
    "StorageError",
    "StorageRefused",
    "StorageUnavailable",
    "UnsafeName",
]


class EmpError(Exception):
    """The base of all errors of emp-core.

    Args:
        message: what happened, and to what.
        hint: what to do next, if there is something to do.
        details: facts for programs, JSON-compatible; never secrets.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    """The exit code of the command line when this error ends it."""

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def as_dict(self) -> dict[str, Any]:
        """The error as it stands in ``--json`` output and in a job's ``error`` field."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            shown["hint"] = self.hint
        if self.details:
            shown["details"] = self.details
        return shown


class ConfigError(EmpError):
    """A setting, the service mapping or an argument is wrong.

    ``problems`` lists every mistake that was found, each with the place it stands at.
    """

    code = "config"
    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        problems: tuple[str, ...] = (),
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), **({"problems": list(self.problems)} if self.problems else {})}


class PluginError(EmpError):
    """A plugin cannot be used: it does not import, or two of them claim the same name."""

    code = "plugin"
    exit_code = 2


class InstallError(EmpError):
    """A service could not be installed, or its installation does not work."""

    code = "install"


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


class QueueUnavailable(QueueError):
    """Redis could not be reached, or went away in mid-call."""

    code = "redis_unavailable"
    exit_code = 3


class StorageError(EmpError):
    """An artifact could not be stored, read or deleted."""

    code = "storage"


class ArtifactNotFound(StorageError):
    """The store holds nothing under this name."""

    code = "artifact_not_found"


class ArtifactExists(StorageError):
    """The store holds something else under this name, and overwriting was not asked for."""

    code = "artifact_exists"


class UnsafeName(StorageError):
    """A name from outside tries to leave the folder it belongs to."""

    code = "unsafe_name"


class CannotSign(StorageError):
    """The store has no signed addresses, or what it was opened with does not allow them."""

    code = "cannot_sign"
    exit_code = 2


class StorageUnavailable(StorageError):
    """The store cannot be reached or written now (disk full, no permission, network)."""

    code = "storage_unavailable"
    exit_code = 2


class StorageRefused(StorageUnavailable):
    """The store is there and will not have us: wrong credentials, missing rights, no such container or bucket."""

    code = "storage_refused"


class AddressRefused(EmpError):
    """An address from outside leads where it may not: into a private network, or to another kind of service."""

    code = "address_refused"


class InputError(EmpError):
    """An input that a job refers to cannot be used, or may not be: another attempt cannot help."""

    code = "input"


class InputUnavailable(InputError):
    """An input could not be fetched now: its server is away, busy or broken. Another attempt may go better."""

    code = "input_unavailable"


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
        retry_after_s: how long the service said to wait, in seconds; None when it did not say.
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
        self.retry_after_s = retry_after_s


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
