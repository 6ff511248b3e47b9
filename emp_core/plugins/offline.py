"""What stands in for a plugin or a connector that could not be loaded: it says why, and everything else runs."""

import traceback
from typing import ClassVar

from attrs import field, frozen

from emp_core.connectors.base import Connector, Health, Refusal
from emp_core.connectors.context import JobContext
from emp_core.errors import NotHere, ServiceUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult

__all__ = ["OfflinePlugin", "offline_connector", "offline_reason"]


@frozen
class OfflinePlugin:
    """A plugin that is installed and cannot be used.

    Attributes:
        name: the name of its entry point.
        distribution, version: what was installed; empty when the installation does not tell.
        error_type, message: what was raised.
        traceback: where, for the plugin's author.
    """

    name: str
    distribution: str
    version: str
    error_type: str
    message: str
    traceback: str = field(default="", repr=False)

    @classmethod
    def of(cls, name: str, distribution: str, version: str, error: BaseException) -> "OfflinePlugin":
        """The stand-in for the plugin that raised ``error``."""
        return cls(
            name=name,
            distribution=distribution,
            version=version,
            error_type=type(error).__name__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
        )

    @property
    def reason(self) -> str:
        """Why it is offline, in one line."""
        return f"{self.error_type}: {' '.join(self.message.split())}" if self.message else self.error_type


def offline_connector(name: str, reason: str, cause: BaseException | None = None) -> type[Connector]:
    """A connector class for a connector that could not be loaded.

    It takes no jobs: ``connect`` raises ServiceUnavailable with ``reason``, ``check_health`` answers it, so that the worker
    withdraws the service and goes on with the others.
    """

    class OfflineConnector(Connector):
        service_type: ClassVar[str] = "offline"
        offline_reason: ClassVar[str] = reason

        async def connect(self) -> None:
            raise ServiceUnavailable(
                f"the connector {name} cannot be used: {reason}", hint="`emp plugins` shows what is installed"
            ) from cause

        async def check_health(self) -> Health:
            return Health(ok=False, reason=reason)

        async def can_process_job(self, job: Job) -> Refusal | None:  # noqa: ARG002 - it refuses all of them
            return Refusal(reason)

        async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - it runs none of them
            raise NotHere(f"the connector {name} cannot be used on this worker: {reason}") from cause

    OfflineConnector.__name__ = OfflineConnector.__qualname__ = f"Offline{name}" if name.isidentifier() else "Offline"
    return OfflineConnector


def offline_reason(connector: type[Connector]) -> str | None:
    """Why a connector that was to be loaded could not be; None for one that was."""
    reason: str | None = getattr(connector, "offline_reason", None)
    return reason
