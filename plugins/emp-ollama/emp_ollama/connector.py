"""`OllamaConnector`: jobs as requests to an Ollama server."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio

from emp_core.config import load_settings
from emp_core.connectors.base import Connector, Refusal, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector, Reply
from emp_core.connectors.streams import lines, parsed
from emp_core.errors import (
    ConnectionLost,
    EmpError,
    InputError,
    InvalidJob,
    JobFailed,
    MissingModel,
    ServiceUnavailable,
)
from emp_core.inputs.files import Input
from emp_core.jobs.inputs import InputPlace
from emp_core.jobs.matching import ModelOffer
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirements
from emp_ollama.answer import Answer, usage_of
from emp_ollama.errors import error_of_answer, error_of_line
from emp_ollama.models import Listing, Models, Version, full_name, registry_of
from emp_ollama.payloads import PAYLOADS, Task
from emp_ollama.pulling import PullProgress
from emp_ollama.settings import OllamaSettings

__all__ = ["OllamaConnector"]

T = TypeVar("T")

_ROUTES: Mapping[str, str] = {"generate": "/api/generate", "chat": "/api/chat", "embed": "/api/embed"}
_NOT_SENT = ("model", "options", "keep_alive", "shift", "stream", "extra")
_LOOK_EVERY_S = 10.0
_PULL_MS = 600_000.0
"""What it costs to get a model that is not there, as far as anybody can tell beforehand."""
_PULL_BYTES = 2**33
"""Reports of a pull, a few hundred bytes each, several a second for as long as it takes."""
_PULL_LINE_BYTES = 64 * 2**10
_PICTURES_BYTES = 128 * 2**20
"""What all pictures of a request may have together: it is made in memory, and they stand in it in base64."""
_ABOUT_TO_RUN = 0.5
"""How far a job is when its model has been pulled."""


class OllamaConnector(HTTPConnector):
    """Runs generate, chat and embed on one Ollama server.

    Answers are always streamed from the server, so that closing the connection stops them at once, and a job's text can be
    followed while it is made. A job ends well only with Ollama's last frame.
    """

    service_type = "ollama"
    version = "1.0.0"
    payload_class = PAYLOADS
    health_path = "/api/version"
    max_concurrent_jobs = 1

    def __init__(self, config: ServiceConfig, settings: OllamaSettings | None = None) -> None:
        self.settings = settings or load_settings(OllamaSettings, config.environ)
        super().__init__(config, base_url=self.settings.base_url)
        self.max_answer_bytes = self.settings.max_answer_bytes  # type: ignore[misc]  # this server's own limit
        self.models = Models()
        """What is known of the server's models."""

    @classmethod
    def for_service(cls, config: ServiceConfig) -> Connector:
        """One that speaks to several servers, where the environment describes them."""
        if cls is OllamaConnector and load_settings(OllamaSettings, config.environ).hosts:
            from emp_ollama.several import OllamaHostsConnector  # it is made of connectors of this class

            return OllamaHostsConnector(config)
        return cls(config)

    def make_headers(self) -> dict[str, str]:
        """The credentials, if the operator gave any."""
        key = self.settings.api_key
        return {**super().make_headers(), **({"authorization": f"Bearer {key}"} if key else {})}

    @classmethod
    def prepare_job(cls, spec: JobSpec) -> JobSpec:
        """A job needs its model, and a context of the length that it asks for."""
        task: Task = cls.payload_of(spec)
        least = task.options.get("num_ctx")
        return spec.with_requirements(
            Requirements(
                models=(full_name(task.model),) if task.model else (),
                capabilities={"ollama_num_ctx": least} if isinstance(least, int) else {},
            )
        )

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - the context has it
        """Run a task.

        Raises:
            InvalidJob: Ollama refuses the request, or no answer to it can be right.
            MissingModel: the server does not have the model.
            ServiceBusy: too many models wait to be loaded there.
            JobFailed, OutOfMemory: the model failed, or its answer is not what was asked for.
            ConnectionLost, ServiceUnavailable: the server, or the model's process, went away.
        """
        task: Task = context.payload
        model = task.model or self.settings.default_model
        if model is None:
            raise InvalidJob("the job names no model", hint="give model, or set OLLAMA_DEFAULT_MODEL on the worker")
        body = await self._body(task, model, context)
        await context.progress(0.0, f"waiting for {model}")
        try:
            return await self._while_it_lives(lambda: self._run(task, body, context))
        except MissingModel:
            if not self.settings.pull:
                raise
        self._check_registry(model)
        await self._while_it_lives(lambda: self._pull(model, context))
        return await self._while_it_lives(lambda: self._run(task, body, context, begins_at=_ABOUT_TO_RUN))

    async def can_process_job(self, job: Job) -> Refusal | None:
        """A job that would have its model loaded anew, with other sizes, is for another worker."""
        refused = self.settings.sizing.refusal(self.payload_of(job))
        return None if refused is None else Refusal(refused)

    async def get_service_info(self) -> ServiceInfo:
        """Version, and the models that are installed, with what is loaded now."""
        limit_s = self.health_timeout_s
        about = await self.request_as(Version, "GET", "/api/version", silence_s=limit_s)
        installed = await self.request_as(Listing, "GET", "/api/tags", silence_s=limit_s)
        loaded = await self.request_as(Listing, "GET", "/api/ps", silence_s=limit_s)
        self.models.seen(installed, loaded)
        return ServiceInfo(
            name=self.config.name,
            version=about.version,
            models=self.models.offers(),
            other_models=ModelOffer(load_ms=_PULL_MS) if self.settings.pull else None,
            capabilities=self.settings.sizing.capabilities(),
            details={"endpoint": self.endpoint, "models": self.models.details()},
        )

    def error_for(self, reply: Reply, doing: str) -> EmpError:
        """Ollama's errors are told by their texts."""
        return error_of_answer(reply.status, reply.headers, reply.text, endpoint=self.endpoint, doing=doing)

    async def _body(self, task: Task, model: str, context: JobContext) -> dict[str, Any]:
        given = await context.replace_inputs(context.job.payload, _base64_of_all(), accept=("image/*",))
        body = {name: value for name, value in given.items() if name not in _NOT_SENT and value is not None}
        kept = task.keep_alive if task.keep_alive is not None else self.settings.keep_alive
        return {
            **task.extra,
            **body,
            "model": model,
            **self.settings.sizing.sent_for(task),
            **({} if kept is None else {"keep_alive": _number_or_text(kept)}),
        }

    async def _run(
        self, task: Task, body: Mapping[str, Any], context: JobContext, *, begins_at: float = 0.0
    ) -> JobResult:
        if task.task == "embed":
            return await self._embed(body)
        path = _ROUTES[task.task]
        options = body.get("options", {})
        expected = options.get("num_predict")
        answer = Answer(str(body["model"]))
        async with self.stream("POST", path, json={**body, "stream": True}, silence_s=None) as response:
            chunks = self.chunks_capped(response, self.max_answer_bytes)
            async for line in lines(chunks, silence_s=self.settings.silence_s):
                if not line.strip():
                    continue
                frame = parsed(line, self.endpoint)
                if not isinstance(frame, Mapping) or "error" in frame:
                    raise error_of_line(
                        frame["error"] if isinstance(frame, Mapping) else line,
                        endpoint=self.endpoint,
                        doing=f"POST {path}",
                    )
                piece = answer.take(frame)
                if piece.text:
                    await context.text(piece.text)
                known = isinstance(expected, int) and expected > 0
                done = min(1.0, answer.frames / expected) if known else 0.0
                await context.progress(begins_at + (1.0 - begins_at) * done, f"{answer.frames} tokens")
                if answer.final is not None:
                    break
        self.models.ran(answer.model, answer.final, stays=body.get("keep_alive") != 0)
        repeats = options.get("temperature") == 0 or "seed" in options
        return await answer.result(task=task.task, wanted=body.get("format"), repeats=repeats)

    async def _embed(self, body: Mapping[str, Any]) -> JobResult:
        answer = await self.request_json("POST", _ROUTES["embed"], json=body, silence_s=None)
        vectors = answer.get("embeddings") if isinstance(answer, Mapping) else None
        if not isinstance(vectors, list):
            raise ServiceUnavailable(f"{self.endpoint} answered POST /api/embed without embeddings")
        asked = body["input"]
        expected = len(asked) if not isinstance(asked, str) else 1 if asked else 0
        if len(vectors) != expected:
            said = f"{self.endpoint} made {len(vectors)} vectors of {expected} texts"
            raise JobFailed(said, details={"reason": "incomplete"})
        self.models.ran(str(body["model"]), answer, stays=body.get("keep_alive") != 0)
        data = {"model": body["model"], "task": "embed", "embeddings": vectors}
        return JobResult(data=data, usage=usage_of(answer))

    async def _pull(self, model: str, context: JobContext) -> None:
        """Have the server get a model. What it has got stays when this is broken off, so that the next pull goes on."""
        context.log.info("pulling a model", model=model, endpoint=self.endpoint)
        progress = PullProgress(model, endpoint=self.endpoint)
        async with self.stream("POST", "/api/pull", json={"model": model, "stream": True}, silence_s=None) as response:
            chunks = self.chunks_capped(response, _PULL_BYTES)
            async for line in lines(chunks, silence_s=self.settings.silence_s, max_line_bytes=_PULL_LINE_BYTES):
                if line.strip():
                    progress.take(parsed(line, self.endpoint))
                    await context.progress(progress.fraction * _ABOUT_TO_RUN, progress.message)
        progress.prove()
        context.log.info("pulled a model", model=model, endpoint=self.endpoint)

    def _check_registry(self, model: str) -> None:
        if (registry := registry_of(model)) not in self.settings.registries:
            raise MissingModel(
                f"{self.endpoint} does not have the model {model}, and none are pulled from {registry}",
                hint="EMP_OLLAMA_REGISTRIES says where from",
                details={"model": model, "endpoint": self.endpoint},
            )

    async def _while_it_lives(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something that may have to wait for long without a byte; give it up when the server answers nothing at all.

        Raises:
            ConnectionLost: it answered nothing for ``stall_s``; and what ``work`` raises.
        """
        done: list[T] = []
        failure: Exception | None = None
        gone: str | None = None

        async def watch() -> None:
            nonlocal gone
            silent_since: float | None = None
            every_s = min(_LOOK_EVERY_S, self.settings.stall_s / 2)
            while True:
                await anyio.sleep(every_s)
                asked_at = anyio.current_time()
                health = await self.check_health()
                if health.ok:
                    silent_since = None
                    continue
                silent_since = asked_at if silent_since is None else silent_since
                if anyio.current_time() - silent_since >= self.settings.stall_s:
                    gone = health.reason or "it does not answer"
                    group.cancel_scope.cancel()
                    return

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                done.append(await work())
            except Exception as error:  # raised again below, as itself and not as a group
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not done:
            raise ConnectionLost(
                f"{self.endpoint} answered nothing any more while a job was there: {gone}",
                details={"endpoint": self.endpoint},
            )
        return done[0]


def _number_or_text(value: str | float) -> str | float:
    """``keep_alive``: Ollama takes ``"10m"`` and numbers of seconds, but not numbers as texts."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _base64_of_all() -> Callable[[InputPlace, Input], Awaitable[str]]:
    """Gives the pictures of one request in base64. Raises InputError: they are too long together."""
    left_bytes = _PICTURES_BYTES

    async def as_base64(_: InputPlace, file: Input) -> str:
        nonlocal left_bytes
        left_bytes -= file.size_bytes
        if left_bytes < 0:
            raise InputError(
                f"the pictures of a request may have {_PICTURES_BYTES:,} bytes together, and with {file.name} they have more",
                details={"reason": "too_large", "limit_bytes": _PICTURES_BYTES},
            )
        return base64.b64encode(await file.read()).decode()

    return as_base64
