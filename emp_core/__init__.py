"""emp-core: the job queue and worker system for AI services.

Everything that programs need is here; modules further down may change without notice.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from emp_core.config import Settings, setting
    from emp_core.connectors.base import Connector, Health, Refusal, ServiceConfig, ServiceInfo
    from emp_core.connectors.context import JobContext, Preview
    from emp_core.connectors.http import HTTPConnector
    from emp_core.connectors.websocket import WebSocketConnector
    from emp_core.errors import (
        AddressRefused,
        ArtifactExists,
        ArtifactNotFound,
        AttemptTimeout,
        AuthenticationFailed,
        CannotSign,
        ConfigError,
        ConnectionLost,
        ConnectorError,
        ContentRefused,
        DeadlineExceeded,
        DuplicateJob,
        EmpError,
        IllegalTransition,
        InputError,
        InputUnavailable,
        InstallError,
        InvalidJob,
        JobFailed,
        JobNotFound,
        LeaseLost,
        MissingModel,
        MissingNode,
        NobodyServes,
        NotHere,
        NotRepeated,
        OutOfMemory,
        PayloadTooLarge,
        PluginError,
        QueueError,
        QueueFull,
        QueueUnavailable,
        QuotaExhausted,
        RateLimited,
        ServiceBroken,
        ServiceBusy,
        ServiceUnavailable,
        StorageError,
        StorageRefused,
        StorageUnavailable,
        UnsafeName,
        WorkerNotFound,
    )
    from emp_core.inputs.files import Input
    from emp_core.jobs.inputs import InputRef
    from emp_core.jobs.matching import ModelOffer
    from emp_core.jobs.model import Artifact, Destination, Job, JobError, JobSpec
    from emp_core.jobs.outcomes import Cancelled, Completed, Failed, JobResult, Outcome, Release, Retry
    from emp_core.jobs.requirements import Requirements
    from emp_core.jobs.states import JobState
    from emp_core.plugins.hookspecs import Registration, hookimpl
    from emp_core.plugins.preparing import Preparer
    from emp_core.queue.attempts import AttemptRecord
    from emp_core.queue.events import JobEvent
    from emp_core.queue.explain import Explanation, WorkerVerdict
    from emp_core.queue.queue import JobQueue
    from emp_core.queue.stream import EventBatch, EventReader
    from emp_core.queue.synchronous import SyncJobQueue
    from emp_core.queue.workers import WorkerView
    from emp_core.services.installer import Installer, Step, StepContext
    from emp_core.storage.interface import ArtifactStore, StoredObject
    from emp_core.worker.notices import SpotNotice
    from emp_core.worker.worker import Worker

__all__ = [
    "AddressRefused",
    "Artifact",
    "ArtifactExists",
    "ArtifactNotFound",
    "ArtifactStore",
    "AttemptRecord",
    "AttemptTimeout",
    "AuthenticationFailed",
    "Cancelled",
    "CannotSign",
    "Completed",
    "ConfigError",
    "ConnectionLost",
    "Connector",
    "ConnectorError",
    "ContentRefused",
    "DeadlineExceeded",
    "Destination",
    "DuplicateJob",
    "EmpError",
    "EventBatch",
    "EventReader",
    "Explanation",
    "Failed",
    "HTTPConnector",
    "Health",
    "IllegalTransition",
    "Input",
    "InputError",
    "InputRef",
    "InputUnavailable",
    "InstallError",
    "Installer",
    "InvalidJob",
    "Job",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobFailed",
    "JobNotFound",
    "JobQueue",
    "JobResult",
    "JobSpec",
    "JobState",
    "LeaseLost",
    "MissingModel",
    "MissingNode",
    "ModelOffer",
    "NobodyServes",
    "NotHere",
    "NotRepeated",
    "OutOfMemory",
    "Outcome",
    "PayloadTooLarge",
    "PluginError",
    "Preparer",
    "Preview",
    "QueueError",
    "QueueFull",
    "QueueUnavailable",
    "QuotaExhausted",
    "RateLimited",
    "Refusal",
    "Registration",
    "Release",
    "Requirements",
    "Retry",
    "ServiceBroken",
    "ServiceBusy",
    "ServiceConfig",
    "ServiceInfo",
    "ServiceUnavailable",
    "Settings",
    "SpotNotice",
    "Step",
    "StepContext",
    "StorageError",
    "StorageRefused",
    "StorageUnavailable",
    "StoredObject",
    "SyncJobQueue",
    "UnsafeName",
    "WebSocketConnector",
    "Worker",
    "WorkerNotFound",
    "WorkerVerdict",
    "WorkerView",
    "hookimpl",
    "setting",
]

_HOMES = {
    "emp_core.config": ("Settings", "setting"),
    "emp_core.connectors.base": ("Connector", "Health", "Refusal", "ServiceConfig", "ServiceInfo"),
    "emp_core.connectors.context": ("JobContext", "Preview"),
    "emp_core.connectors.http": ("HTTPConnector",),
    "emp_core.connectors.websocket": ("WebSocketConnector",),
    "emp_core.jobs.model": ("Artifact", "Destination", "Job", "JobError", "JobSpec"),
    "emp_core.jobs.outcomes": ("Cancelled", "Completed", "Failed", "JobResult", "Outcome", "Release", "Retry"),
    "emp_core.inputs.files": ("Input",),
    "emp_core.jobs.inputs": ("InputRef",),
    "emp_core.jobs.matching": ("ModelOffer",),
    "emp_core.jobs.requirements": ("Requirements",),
    "emp_core.jobs.states": ("JobState",),
    "emp_core.plugins.hookspecs": ("Registration", "hookimpl"),
    "emp_core.plugins.preparing": ("Preparer",),
    "emp_core.queue.attempts": ("AttemptRecord",),
    "emp_core.queue.events": ("JobEvent",),
    "emp_core.queue.explain": ("Explanation", "WorkerVerdict"),
    "emp_core.queue.queue": ("JobQueue",),
    "emp_core.queue.stream": ("EventBatch", "EventReader"),
    "emp_core.queue.synchronous": ("SyncJobQueue",),
    "emp_core.queue.workers": ("WorkerView",),
    "emp_core.services.installer": ("Installer", "Step", "StepContext"),
    "emp_core.storage.interface": ("ArtifactStore", "StoredObject"),
    "emp_core.worker.notices": ("SpotNotice",),
    "emp_core.worker.worker": ("Worker",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> typing.Any:
    # Imported on first use: whoever only submits jobs does not wait for the worker, and `emp --help` for neither.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME_OF.get(name, "emp_core.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
