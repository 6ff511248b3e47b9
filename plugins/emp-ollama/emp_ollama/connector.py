"""`OllamaConnector`: jobs as requests to an Ollama server."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio

from emp_core.config import load_settings
from emp_core.connectors.base import Refusal, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector, Reply
from emp_core.connectors.streams import lines, parsed
from emp_core.errors import ConnectionLost, EmpError, InvalidJob, MissingModel, ServiceUnavailable
from emp_core.inputs.files import Input
from emp_core.jobs.inputs import InputPlace
from emp_core.jobs.matching import ModelOffer
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirements
from emp_ollama.answer import Answer, usage_of
from emp_ollama.errors import error_of_answer, error_of_line
from emp_ollama.models import Models, full_name
from emp_ollama.payloads import PAYLOADS, Task
from emp_ollama.pulling import PullProgress
from emp_ollama.settings import SIZING_OPTIONS, OllamaSettings

__all__ = ["OllamaConnector"]

T = TypeVar("T")

_ROUTES: Mapping[str, str] = {"generate": "/api/generate", "chat": "/api/chat", "embed": "/api/embed"}
_NOT_SENT = ("model", "options", "keep_alive", "stream", "extra")
_LOOK_EVERY_S = 10.0
_PULL_MS = 600_000.0
"""What it costs to get a model that is not there, as far as anybody can tell beforehand."""
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

    def __init__(self, config: ServiceConfig) -> None:
        self.settings = load_settings(OllamaSettings, config.environ)
        super().__init__(config, base_url=self.settings.base_url)
        self.max_answer_bytes = self.settings.max_answer_bytes  # type: ignore[misc]  # this server's own limit
        self._models = Models(others=self.settings.pull)

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
        await self._while_it_lives(lambda: self._pull(model, context))
        return await self._while_it_lives(lambda: self._run(task, body, context, begins_at=_ABOUT_TO_RUN))

    async def can_process_job(self, job: Job) -> Refusal | None:
        """A job that would have its model loaded anew, with other sizes, is for another worker."""
        options = self.payload_of(job).options
        if self.settings.allow_reload:
            return None
        for name in SIZING_OPTIONS:
            asked, own = options.get(name), self.settings.sizing.get(name)
            if asked is not None and asked != own and not (name == "num_ctx" and _covers(own, asked)):
                runs_with = "the server's own" if own is None else repr(own)
                return Refusal(
                    f"the job asks for {name} {asked!r}, models of this worker run with {runs_with}: set EMP_OLLAMA_OPTIONS on "
                    "workers for such jobs, or EMP_OLLAMA_ALLOW_RELOAD"
                )
        return None

    async def get_service_info(self) -> ServiceInfo:
        """Version, and the models that are installed, with what is loaded now."""
        version = await self.request_json("GET", "/api/version", silence_s=self.health_timeout_s)
        tags = await self.request_json("GET", "/api/tags", silence_s=self.health_timeout_s)
        loaded = await self.request_json("GET", "/api/ps", silence_s=self.health_timeout_s)
        self._models.seen(tags, loaded)
        length = self.settings.sizing.get("num_ctx")
        return ServiceInfo(
            name=self.config.name,
            version=str(version.get("version") or "") if isinstance(version, Mapping) else "",
            models=self._models.offers(),
            other_models=ModelOffer(load_ms=_PULL_MS) if self.settings.pull else None,
            capabilities={} if length is None else {"ollama_num_ctx": length},
            details={"endpoint": self.endpoint, "models": self._models.details()},
        )

    def error_for(self, reply: Reply, doing: str) -> EmpError:
        """Ollama's errors are told by their texts."""
        return error_of_answer(reply.status, reply.headers, reply.text, endpoint=self.endpoint, doing=doing)

    async def _body(self, task: Task, model: str, context: JobContext) -> dict[str, Any]:
        given = await context.replace_inputs(context.job.payload, _as_base64, accept=("image/*",))
        body = {name: value for name, value in given.items() if name not in _NOT_SENT and value is not None}
        options = {**task.options, **self._sizing(task.options)}
        kept = task.keep_alive if task.keep_alive is not None else self.settings.keep_alive
        return {
            **task.extra,
            **body,
            "model": model,
            **({"options": options} if options else {}),
            **({} if kept is None else {"keep_alive": _number_or_text(kept)}),
        }

    def _sizing(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The options that size the model's process: the worker's own, unless jobs may choose."""
        own = dict(self.settings.sizing)
        if self.settings.allow_reload:
            own.update({name: asked[name] for name in SIZING_OPTIONS if name in asked})
        return own

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
                frame = parsed(line, self.endpoint) if line.strip() else {}
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
        temperature = options.get("temperature")
        self._models.ran(answer.model, answer.final)
        return answer.result(task=task.task, wanted=body.get("format"), temperature=temperature)

    async def _embed(self, body: Mapping[str, Any]) -> JobResult:
        answer = await self.request_json("POST", _ROUTES["embed"], json=body, silence_s=None)
        vectors = answer.get("embeddings") if isinstance(answer, Mapping) else None
        if not isinstance(vectors, list):
            raise ServiceUnavailable(f"{self.endpoint} answered POST /api/embed without embeddings")
        data = {"model": body["model"], "task": "embed", "embeddings": vectors}
        return JobResult(data=data, usage=usage_of(answer))

    async def _pull(self, model: str, context: JobContext) -> None:
        """Have the server get a model. What it has got stays when this is broken off, so that the next pull goes on."""
        context.log.info("pulling a model", model=model, endpoint=self.endpoint)
        progress = PullProgress(model, endpoint=self.endpoint)
        async with self.stream("POST", "/api/pull", json={"model": model, "stream": True}, silence_s=None) as response:
            chunks = self.chunks_capped(response, self.max_answer_bytes)
            async for line in lines(chunks, silence_s=self.settings.silence_s):
                if line.strip():
                    progress.take(parsed(line, self.endpoint))
                    await context.progress(progress.fraction * _ABOUT_TO_RUN, progress.message)
        progress.prove()
        context.log.info("pulled a model", model=model, endpoint=self.endpoint)

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


def _covers(own: Any, asked: Any) -> bool:
    """Whether a context of this length holds what another asks for."""
    return isinstance(own, int) and isinstance(asked, int) and asked <= own


def _number_or_text(value: str | float) -> str | float:
    """``keep_alive``: Ollama takes ``"10m"`` and numbers of seconds, but not numbers as texts."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return value
    return value


async def _as_base64(_: InputPlace, file: Input) -> str:
    return base64.b64encode(await file.read()).decode()
