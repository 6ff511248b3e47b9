"""A service whose jobs have ids and outlive connections, its fake, and its connector, which keeps to every rule."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import anyio
import pytest
from aiohttp import web
from attrs import define, field

from emp_core import Health, HTTPConnector, InvalidJob, Job, JobContext, JobResult, ServiceConfig, ServiceInfo
from emp_core.errors import ConnectorError, EmpError, JobFailed, ServiceUnavailable
from emp_core.testing.conformance.connector import ConnectorConformance
from emp_core.testing.fake_service import FakeService
from emp_core.testing.link import GARBAGE

__all__ = ["KEY", "FakeStudio", "StudioConformance", "StudioConnector"]

KEY = "studio-key-that-nobody-may-see"
_STOP_S = 5.0


class StudioConnector(HTTPConnector):
    """Begins a job, asks after it until it is done, stops it when nobody wants it any more."""

    service_type = "studio"
    version = "1"
    health_path = "/health"
    max_concurrent_jobs = 4
    max_answer_bytes = 2**20

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, base_url=config.environ["STUDIO_URL"])

    def make_headers(self) -> dict[str, str]:
        return {**super().make_headers(), "authorization": f"Bearer {self.config.environ['STUDIO_KEY']}"}

    async def connect(self) -> None:
        await self._health()

    async def check_health(self) -> Health:
        try:
            with anyio.fail_after(self.health_timeout_s):
                await self._health()
        except EmpError as error:
            return Health(ok=False, reason=error.message)
        except TimeoutError:
            return Health(ok=False, reason=f"{self.endpoint} is silent")
        return Health(ok=True)

    async def get_service_info(self) -> ServiceInfo:
        return ServiceInfo(self.config.name, version=str((await self._health())["version"]))

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        text = self.text_of(job)
        run = await self.adopt(context) or await self.begin(text, context)
        try:
            shouted = await self.until_done(run, context)
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_S):
                await self.stop(run)
            raise
        return await self.deliver(shouted, context)

    def text_of(self, job: Job) -> str:
        text = job.payload.get("text") if isinstance(job.payload, dict) else None
        if not isinstance(text, str):
            raise InvalidJob("payload.text: expected a text")
        return text

    async def adopt(self, context: JobContext) -> str | None:
        """The run of an earlier attempt, if it is there."""
        if context.service_job_id is None:
            return None
        reply = await self.request("GET", f"/jobs/{context.service_job_id}", params={"wait": "no"}, accept=(404,))
        return context.service_job_id if reply.status == 200 else None

    async def begin(self, text: str, context: JobContext) -> str:
        run = str(uuid.uuid4())
        await context.checkpoint(run)
        await context.progress(0.1, "begun")
        answer = await self.request_json("PUT", f"/jobs/{run}", json={"text": text})
        return self.understood(answer, "id")

    async def until_done(self, run: str, context: JobContext) -> str:
        while True:
            answer = await self.ask(run)
            await context.progress(0.5, "under way")
            match self.understood(answer, "state"):
                case "done":
                    return self.understood(answer, "text")
                case "stopped":
                    raise JobFailed("somebody stopped it")

    async def ask(self, run: str) -> Any:
        """How it is, as soon as it has changed."""
        return await self.request_json("GET", f"/jobs/{run}", silence_s=None)

    async def stop(self, run: str) -> None:
        with suppress(ConnectorError):
            await self.request("DELETE", f"/jobs/{run}")

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        artifact = await context.save(shouted.encode(), "shout.txt", "text/plain")
        return JobResult({"text": shouted}, artifacts=(artifact,))

    def understood(self, answer: Any, key: str) -> str:
        if isinstance(answer, Mapping) and isinstance(answer.get(key), str):
            return str(answer[key])
        raise ServiceUnavailable(f"{self.endpoint} gives an answer without {key!r}")

    async def _health(self) -> Mapping[str, Any]:
        answer = await self.request_json("GET", "/health", silence_s=self.health_timeout_s)
        self.understood(answer, "version")
        found: Mapping[str, Any] = answer
        return found


@define(eq=False)
class _Run:
    text: str
    scope: anyio.CancelScope | None = None
    ended: anyio.Event = field(factory=anyio.Event)
    state: str = "running"


class FakeStudio(FakeService):
    """Jobs go on without their connections, until they are done or deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, _Run] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return web.Response(status=401)
        run_id = request.path.removeprefix("/jobs/")
        match request.method, self.runs.get(run_id):
            case "GET", _ if request.path == "/health":
                return web.json_response({"version": "7"})
            case "PUT", None:
                return await self._begin(run_id, request)
            case "DELETE", _ if request.path == "/jobs":
                for run in self.runs.values():
                    self._stop(run)
                return web.Response()
            case "GET", _Run() as run:
                if request.query.get("wait") != "no":
                    await run.ended.wait()
                return web.json_response({"state": run.state, "text": run.text.upper()})
            case "DELETE", _Run() as run:
                self._stop(run)
                return web.Response()
        return web.Response(status=404)

    async def _begin(self, run_id: str, request: web.Request) -> web.StreamResponse:
        run = self.runs[run_id] = _Run((await request.json())["text"])
        run.scope = self.start(self._work(run))
        return web.json_response({"id": run_id})

    async def _work(self, run: _Run) -> None:
        try:
            async with self.job():
                run.state = "done"
        finally:
            if run.state != "done":
                run.state = "stopped"
            run.ended.set()

    def _stop(self, run: _Run) -> None:
        if run.scope is not None:
            run.scope.cancel()


class StudioConformance(ConnectorConformance):
    connector_class = StudioConnector
    payloads = ({"text": "hello"}, {"text": "world"})
    bad_payloads = ({"text": 7}, {"text": None})
    secrets = (KEY,)
    garbage = tuple(
        one for one in GARBAGE if one.name in ("no HTTP", "a web page", "broken JSON", "an empty object", "a list")
    )
    oversized_bytes = 16 * 2**20

    def environ(self, url: str) -> Mapping[str, str]:
        return {"STUDIO_URL": url, "STUDIO_KEY": KEY}

    @pytest.fixture
    async def service(self) -> AsyncIterator[FakeStudio]:
        async with FakeStudio() as service:
            yield service
