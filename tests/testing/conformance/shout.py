"""A simple service, its fake, and its connector: the smallest that an author has."""

from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from emp_core import HTTPConnector, InvalidJob, Job, JobContext, JobResult, ServiceConfig
from emp_core.errors import ServiceUnavailable
from emp_core.testing.conformance.connector import ConnectorConformance
from emp_core.testing.fake_service import FakeService

__all__ = ["FakeShout", "ShoutConformance", "ShoutConnector"]


class ShoutConnector(HTTPConnector):
    service_type = "shout"
    health_path = "/health"
    max_concurrent_jobs = 4

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, base_url=config.environ["SHOUT_URL"])

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        text = job.payload.get("text") if isinstance(job.payload, dict) else None
        if not isinstance(text, str):
            raise InvalidJob("payload.text: expected a text", hint='write {"text": "hello"}')
        await context.progress(0.1, "shouting")
        answer = await self.request_json("POST", "/shout", json={"text": text}, silence_s=300)
        match answer:
            case {"text": str(shouted)}:
                artifact = await context.save(shouted.encode(), "shout.txt", "text/plain")
                return JobResult({"text": shouted}, artifacts=(artifact,))
        raise ServiceUnavailable(f"{self.endpoint} shouts otherwise than it should")


class FakeShout(FakeService):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response()
        said = await request.json()
        async with self.job():
            return web.json_response({"text": said["text"].upper()})


class ShoutConformance(ConnectorConformance):
    connector_class = ShoutConnector
    payloads = ({"text": "hello"}, {"text": "world"})
    bad_payloads = ({"text": 7},)

    def environ(self, url: str) -> Mapping[str, str]:
        return {"SHOUT_URL": url}

    @pytest.fixture
    async def service(self) -> AsyncIterator[FakeShout]:
        async with FakeShout() as service:
            yield service
