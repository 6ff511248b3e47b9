"""The echo connector: gives the payload back. For first steps, demonstrations and tests; it needs no service."""

from collections.abc import Mapping
from typing import Any

import anyio
from attrs import frozen

from emp_core import errors
from emp_core.connectors.base import Connector, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.errors import ConnectorError, InvalidJob, ServiceBusy, UnsafeName
from emp_core.jobs.model import Artifact, Job
from emp_core.jobs.outcomes import JobResult
from emp_core.storage.names import safe_key

__all__ = ["OPTIONS_KEY", "EchoArtifact", "EchoConnector", "EchoOptions"]

OPTIONS_KEY = "$echo"
"""The key of the payload that says how to echo; it is not part of what is given back."""

_SECONDS_MAX = 86_400.0
_STEPS_MAX = 10_000
_ATTEMPTS_MAX = 1_000
_FAILURES: Mapping[str, type[ConnectorError]] = {
    name: made
    for name in errors.__all__
    if isinstance(made := getattr(errors, name), type) and issubclass(made, ConnectorError)
}


@frozen
class EchoArtifact:
    """A text to be stored as an output: ``{"name", "text", "media_type"}``."""

    name: str
    text: str
    media_type: str = "text/plain; charset=utf-8"


@frozen
class EchoOptions:
    """How to echo: the payload's ``$echo``.

    Attributes:
        seconds: how long the job takes, 0 to 86400.
        steps: how often it reports progress on the way, 1 to 10000; 10 when it takes time.
        fail: the name of the ConnectorError that it ends with (``ServiceBusy``), after its steps.
        fail_attempts: the attempts that fail so; later ones go well. All of them when not given.
        retry_after_s: what a ServiceBusy or RateLimited says.
        artifact: an output to store.
    """

    seconds: float = 0.0
    steps: int = 0
    fail: type[ConnectorError] | None = None
    fail_attempts: int | None = None
    retry_after_s: float | None = None
    artifact: EchoArtifact | None = None

    @classmethod
    def from_payload(cls, payload: Any) -> "EchoOptions":
        """Read the options of a payload; one without ``$echo`` has none.

        Raises:
            InvalidJob: they cannot be used; tells every mistake with its path.
        """
        given = payload.get(OPTIONS_KEY) if isinstance(payload, Mapping) else None
        if given is None:
            return _NO_OPTIONS
        problems: list[str] = []
        read = _Reader(given, OPTIONS_KEY, problems, known=cls.__annotations__)
        made = cls(
            seconds=read.number("seconds", 0.0, _SECONDS_MAX) or 0.0,
            steps=read.whole("steps", _STEPS_MAX) or 0,
            fail=_failure(read, problems),
            fail_attempts=read.whole("fail_attempts", _ATTEMPTS_MAX),
            retry_after_s=read.number("retry_after_s", 0.0, _SECONDS_MAX),
            artifact=_artifact(read, problems),
        )
        if problems:
            raise InvalidJob(
                "the echo job cannot be run as it is: " + "; ".join(problems), details={"problems": problems}
            )
        return made


_NO_OPTIONS = EchoOptions()


class EchoConnector(Connector):
    """Gives a job's payload back as its result, at once or as ``$echo`` in the payload says (`EchoOptions`)."""

    service_type = "echo"
    version = "1.0.0"
    max_concurrent_jobs = 64

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Echo one job.

        Raises:
            InvalidJob: ``$echo`` cannot be used.
            ConnectorError: the one that ``$echo.fail`` asks for.
        """
        options = EchoOptions.from_payload(job.payload)
        steps = options.steps or (10 if options.seconds else 0)
        for step in range(1, steps + 1):
            await anyio.sleep(options.seconds / steps)
            await context.progress(step / steps, f"step {step} of {steps}")
        if options.fail is not None and context.attempt <= (options.fail_attempts or context.attempt):
            raise _failed(options.fail, options.retry_after_s)
        artifacts: tuple[Artifact, ...] = ()
        if (wanted := options.artifact) is not None:
            artifacts = (await context.save(wanted.text.encode(), wanted.name, wanted.media_type),)
        return JobResult(data=_given_back(job.payload), artifacts=artifacts)

    async def get_service_info(self) -> ServiceInfo:
        """The connector's own version: there is no service behind it."""
        return ServiceInfo(name=self.config.name, version=self.version)


def _given_back(payload: Any) -> Mapping[str, Any]:
    if isinstance(payload, Mapping):
        return {key: value for key, value in payload.items() if key != OPTIONS_KEY}
    return {"payload": payload}


def _failed(kind: type[ConnectorError], retry_after_s: float | None) -> ConnectorError:
    message = f"the job asked for {kind.__name__} ({OPTIONS_KEY}.fail)"
    return kind(message, retry_after_s=retry_after_s) if issubclass(kind, ServiceBusy) else kind(message)


def _failure(read: "_Reader", problems: list[str]) -> type[ConnectorError] | None:
    name = read.text("fail")
    if name is not None and name not in _FAILURES:
        problems.append(f"{OPTIONS_KEY}.fail: expected one of {', '.join(_FAILURES)}, not {name[:80]!r}")
    return _FAILURES.get(name) if name is not None else None


def _artifact(read: "_Reader", problems: list[str]) -> EchoArtifact | None:
    given = read.value("artifact")
    if given is None:
        return None
    path = f"{OPTIONS_KEY}.artifact"
    inner = _Reader(given, path, problems, known=EchoArtifact.__annotations__)
    name, text = inner.text("name", required=True), inner.text("text", required=True)
    media_type = inner.text("media_type")
    if name is None or text is None:
        return None
    try:
        safe_key(name)
    except UnsafeName as error:
        problems.append(f"{path}.name: {error}")
    return EchoArtifact(name, text, media_type) if media_type else EchoArtifact(name, text)


class _Reader:
    """Reads the fields of one object of the payload, and takes note of what is wrong with them."""

    def __init__(self, given: Any, path: str, problems: list[str], known: Mapping[str, Any]) -> None:
        self._path = path
        self._problems = problems
        self._given: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        if not isinstance(given, Mapping):
            problems.append(f"{path}: expected an object, not {given!r:.80}")
        problems += [
            f"{path}.{name!s:.80}: unknown; known are {', '.join(known)}" for name in self._given if name not in known
        ]

    def value(self, name: str) -> Any:
        return self._given.get(name)

    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self._given.get(name)
        if isinstance(value, str) and (value or not required or name == "text"):
            return value
        if value is not None or required:
            self._problems.append(f"{self._path}.{name}: expected a text, not {value!r:.80}")
        return None

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        # NaN and the infinities are never between two numbers.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        self._problems.append(f"{self._path}.{name}: expected a number from {least:g} to {most:g}, not {value!r:.80}")
        return None

    def whole(self, name: str, most: int) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        self._problems.append(f"{self._path}.{name}: expected a whole number from 1 to {most}, not {value!r:.80}")
        return None
