"""The echo connector: gives the payload back. For first steps, demonstrations and tests; it needs no service."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from attrs import field, frozen, validators

from emp_core import errors
from emp_core.connectors.base import Connector, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.errors import ConnectorError, ServiceBusy, UnsafeName
from emp_core.jobs.inputs import InputPlace, inputs_of
from emp_core.jobs.model import Artifact, Job
from emp_core.jobs.outcomes import JobResult
from emp_core.storage.names import safe_key

if TYPE_CHECKING:
    from emp_core.inputs.files import Input

__all__ = ["EchoArtifact", "EchoConnector", "EchoOptions", "EchoPayload"]

_SECONDS_MAX = 86_400.0
_FAILURES: Mapping[str, type[ConnectorError]] = {
    name: made
    for name in errors.__all__
    if isinstance(made := getattr(errors, name), type) and issubclass(made, ConnectorError)
}


def _up_to(least: float, most: float) -> Any:
    return validators.optional([validators.ge(least), validators.le(most)])


def _stays_in_its_folder(_artifact: object, _field: object, name: str) -> None:
    try:
        safe_key(name)
    except UnsafeName as error:
        raise ValueError(f"its name cannot be used: {error.message}") from error


@frozen
class EchoArtifact:
    """A text to be stored as an output.

    Attributes:
        name: its file name.
        text: what is in it.
        media_type: its MIME type.
    """

    name: str = field(validator=validators.and_(validators.min_len(1), _stays_in_its_folder))
    text: str
    media_type: str = "text/plain; charset=utf-8"


@frozen
class EchoOptions:
    """How to echo.

    Attributes:
        seconds: how long the job takes, 0 to 86400.
        steps: how often it reports progress on the way, 1 to 10000; 10 when it takes time.
        fail: the name of the ConnectorError that it ends with (``ServiceBusy``), after its steps.
        fail_attempts: the attempts that fail so; later ones go well. All of them when not given.
        retry_after_s: what a ServiceBusy or RateLimited says.
        artifact: an output to store.
    """

    seconds: float | None = field(default=None, validator=_up_to(0, _SECONDS_MAX))
    steps: int | None = field(default=None, validator=_up_to(1, 10_000))
    fail: str | None = field(default=None, validator=validators.optional(validators.in_(tuple(_FAILURES))))
    fail_attempts: int | None = field(default=None, validator=_up_to(1, 1_000))
    retry_after_s: float | None = field(default=None, validator=_up_to(0, _SECONDS_MAX))
    artifact: EchoArtifact | None = None


@frozen
class EchoPayload:
    """What is to be given back, and how.

    Attributes:
        options: how to echo; at once when not given.
        data: what is given back.
    """

    options: EchoOptions | None = field(default=None, metadata={"key": "$echo"})
    data: Mapping[str, Any] = field(factory=dict, metadata={"rest": True})


_AT_ONCE = EchoOptions()


class EchoConnector(Connector):
    """Gives a job's payload back as its result, at once or as ``$echo`` in the payload says (`EchoOptions`).

    Files that the payload refers to are fetched, and told by their name, type, length and checksum.
    """

    service_type = "echo"
    version = "1.0.0"
    max_concurrent_jobs = 64
    payload_class = EchoPayload

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - all of it is in the payload
        """Echo one job.

        Raises:
            ConnectorError: the one that ``$echo.fail`` asks for.
            InputError, InputUnavailable: a file cannot be had.
        """
        payload: EchoPayload = context.payload
        options = payload.options or _AT_ONCE
        seconds = options.seconds or 0.0
        steps = options.steps or (10 if seconds else 0)
        for step in range(1, steps + 1):
            await anyio.sleep(seconds / steps)
            await context.progress(step / steps, f"step {step} of {steps}")
        if options.fail is not None and context.attempt <= (options.fail_attempts or context.attempt):
            raise _failed(_FAILURES[options.fail], options.retry_after_s)
        artifacts: tuple[Artifact, ...] = ()
        if (wanted := options.artifact) is not None:
            artifacts = (await context.save(wanted.text.encode(), wanted.name, wanted.media_type),)
        data = payload.data
        if any(inputs_of(data)):
            data = await context.replace_inputs(data, _described)
        return JobResult(data=data, artifacts=artifacts)

    async def get_service_info(self) -> ServiceInfo:
        """The connector's own version: there is no service behind it."""
        return ServiceInfo(name=self.config.name, version=self.version)


async def _described(_: InputPlace, file: "Input") -> dict[str, Any]:
    return {
        "name": file.name,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
    }


def _failed(kind: type[ConnectorError], retry_after_s: float | None) -> ConnectorError:
    message = f"the job asked for {kind.__name__} ($echo.fail)"
    return kind(message, retry_after_s=retry_after_s) if issubclass(kind, ServiceBusy) else kind(message)
