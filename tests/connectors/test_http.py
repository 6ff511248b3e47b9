import inspect
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from aiohttp import web
from attrs import frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector
from emp_core.connectors.http_errors import retry_after_s, shown
from emp_core.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    EmpError,
    InvalidJob,
    JobFailed,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.testing.ports import free_port

from .web import serving


class ShoutConnector(HTTPConnector):
    service_type = "shout"
    health_path = "/health"

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, base_url=config.environ["SHOUT_URL"])

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        answer = await self.request_json("POST", "/shout", json={"text": job.payload["text"]})
        return JobResult({"text": answer["text"]})


def shout(url: str) -> ShoutConnector:
    return ShoutConnector(ServiceConfig("shout", {"SHOUT_URL": url}))


def unused_port_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


async def test_a_connector_to_a_simple_service_is_short_and_works():
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.Response()
        said: dict[str, Any] = await request.json()
        return web.json_response({"text": said["text"].upper()})

    async with serving(answer) as url:
        connector = shout(url)
        await connector.connect()
        assert (await connector.check_health()).ok
        job = Job("j", "shout", "shout", JobState.ACTIVE, payload={"text": "hello"}, requirement=Requirement("shout"))
        assert (await connector.process_job(job, None)).data == {"text": "HELLO"}  # type: ignore[arg-type]
        await connector.disconnect()
    assert len(inspect.getsource(ShoutConnector).splitlines()) < 60


async def test_no_origin_is_sent_and_no_compression_is_asked_for():
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response()

    async with serving(answer) as url:
        connector = shout(url)
        await connector.connect()
        await connector.disconnect()
    assert "Origin" not in seen[0].headers
    assert seen[0].headers["Accept-Encoding"] == "identity"


async def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with serving(answer) as url:
        connector = shout(url)
        await connector.connect()
        await connector.disconnect()


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (400, {}, InvalidJob),
        (401, {}, AuthenticationFailed),
        (402, {}, QuotaExhausted),
        (403, {}, AuthenticationFailed),
        (404, {}, InvalidJob),
        (408, {}, ConnectionLost),
        (422, {}, InvalidJob),
        (429, {"Retry-After": "7"}, RateLimited),
        (500, {}, ServiceUnavailable),
        (502, {}, ServiceUnavailable),
        (503, {}, ServiceUnavailable),
        (503, {"Retry-After": "7"}, ServiceBusy),
        (302, {"Location": "/"}, ServiceUnavailable),
    ],
)
async def test_a_refusal_becomes_the_error_type_of_its_status(
    status: int, headers: dict[str, str], expected: type[EmpError]
):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="because\n of\x00 this")

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(expected) as caught:
            await connector.request("GET", "/thing")
        await connector.disconnect()
    assert type(caught.value) is expected
    assert "because of this" in caught.value.message
    assert caught.value.details["status"] == status
    if isinstance(caught.value, ServiceBusy):
        assert caught.value.retry_after_s == 7


async def test_a_service_that_is_not_there_is_unavailable():
    connector = shout(unused_port_url())
    with pytest.raises(ServiceUnavailable) as caught:
        await connector.connect()
    health = await connector.check_health()
    await connector.disconnect()
    assert type(caught.value) is ServiceUnavailable
    assert not health.ok
    assert "nothing answers" in (health.reason or "")


async def test_an_address_that_is_none_is_a_mistake_of_the_settings():
    connector = shout("ftp://somewhere")
    with pytest.raises(ConfigError):
        await connector.connect()
    await connector.disconnect()


async def test_a_service_that_drops_the_connection_in_mid_request_is_lost():
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(ConnectionLost):
            await connector.request("GET", "/")
        await connector.disconnect()


async def test_an_answer_that_ends_too_early_is_lost():
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(ConnectionLost):
            await connector.request("GET", "/")
        await connector.disconnect()


async def test_silence_is_bounded_when_the_request_says_so_and_not_otherwise():
    go = anyio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.Response(text="late")

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(ConnectionLost, match="silent"):
            await connector.request("GET", "/", silence_s=0.05)
        async with anyio.create_task_group() as group:

            async def patient() -> None:
                assert (await connector.request("GET", "/", silence_s=None)).text == "late"

            group.start_soon(patient)
            await anyio.wait_all_tasks_blocked()
            go.set()
        await connector.disconnect()


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_longer_than_the_cap_is_refused_while_it_arrives(declared: bool):
    written = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Length": str(10**9)} if declared else {})
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 10**6)
            written += 10**6
        return response

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(JobFailed) as caught:
            await connector.request("GET", "/", max_bytes=1000)
        await connector.disconnect()
    assert caught.value.details["reason"] == "answer_too_long"
    assert written < 10**8


async def test_an_answer_that_is_no_json_is_an_unavailable_service():
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>")

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(ServiceUnavailable, match="no JSON"):
            await connector.request_json("GET", "/")
        await connector.disconnect()


@frozen
class Shouted:
    text: str
    loudness: int = 0


async def test_an_answer_is_read_into_a_class_and_what_the_service_says_besides_is_left_out():
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"text": "HELLO", "loudness": 3, "since_version": 9})

    async with serving(answer) as url:
        connector = shout(url)
        assert await connector.request_as(Shouted, "GET", "/shout") == Shouted("HELLO", 3)
        await connector.disconnect()


@pytest.mark.parametrize(
    ("said", "problems"),
    [
        ({}, ["answer.text: it is required"]),
        ({"text": "a", "loudness": "3"}, ["answer.loudness: expected a whole number, not a text"]),
        ([1], ["answer: expected an object, not a list"]),
        (None, ["answer: expected an object, not null"]),
    ],
)
async def test_an_answer_that_does_not_fit_its_class_is_an_unavailable_service(said: Any, problems: list[str]):
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(said)

    async with serving(answer) as url:
        connector = shout(url)
        with pytest.raises(ServiceUnavailable) as caught:
            await connector.request_as(Shouted, "GET", "/shout")
        await connector.disconnect()
    assert caught.value.details["problems"] == problems
    assert "answered GET /shout with something else" in caught.value.message


async def test_a_connector_can_be_connected_again_after_it_was_disconnected():
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with serving(answer) as url:
        connector = shout(url)
        for _ in range(2):
            await connector.connect()
            await connector.disconnect()


async def test_credentials_in_the_address_stay_out_of_messages():
    connector = shout("http://user:secret@127.0.0.1:1/base")
    with pytest.raises(ServiceUnavailable) as caught:
        await connector.connect()
    await connector.disconnect()
    assert "secret" not in str(caught.value.as_dict())
    assert connector.endpoint == "http://127.0.0.1:1/base"


def test_retry_after_is_read_as_seconds_and_as_a_date():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s({"retry-after": "2.5"}) == 2.5
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, now=now) == 60
    assert retry_after_s({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, now=now) == 0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "1e99"}) == 86_400
    assert retry_after_s({}) is None


def test_what_a_service_says_is_shown_as_one_short_line():
    assert shown("a\n\tb\x1b[0m") == "a b [0m"
    assert len(shown("x" * 10_000)) == 300
