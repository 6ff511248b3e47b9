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
    │   ├── WorkerNotFound
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

from emp_core.errors.base import (
    AddressRefused,
    ConfigError,
    EmpError,
    InstallError,
    PluginError,
)
from emp_core.errors.files import (
    ArtifactExists,
    ArtifactNotFound,
    CannotSign,
    InputError,
    InputUnavailable,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    UnsafeName,
)
from emp_core.errors.queue import (
    DuplicateJob,
    IllegalTransition,
    JobNotFound,
    LeaseLost,
    NobodyServes,
    PayloadTooLarge,
    QueueError,
    QueueFull,
    QueueUnavailable,
    WorkerNotFound,
)
from emp_core.errors.service import (
    AttemptTimeout,
    AuthenticationFailed,
    ConnectionLost,
    ConnectorError,
    ContentRefused,
    DeadlineExceeded,
    InvalidJob,
    JobFailed,
    MissingModel,
    MissingNode,
    NotHere,
    NotRepeated,
    OutOfMemory,
    QuotaExhausted,
    RateLimited,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
)

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
    "WorkerNotFound",
]
