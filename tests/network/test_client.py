"""Connections to addresses from outside."""

import socket
import ssl
from typing import Any

import httpx
import pytest
from aiohttp import web

from emp_core.errors import AddressRefused
from emp_core.network.client import guarded_client
from emp_core.network.guard import Guard
from tests.connectors.web import serving


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"{request.host} {request.path_qs} {request.headers.get('accept-encoding')}")


def lead_to(monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]) -> None:
    """Have any name lead to these addresses: another list at each question."""

    async def getaddrinfo(host: Any, port: Any, **_: Any) -> list[Any]:
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr("anyio.getaddrinfo", getaddrinfo)


async def test_a_host_that_is_allowed_is_asked_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(monkeypatch, [["127.0.0.1"]])
    async with serving(hello) as base, guarded_client(Guard(["files.example"]), timeout=5) as client:
        port = httpx.URL(base).port
        answer = await client.get(f"http://files.example:{port}/cat.png?size=1")
    assert answer.text == f"files.example:{port} /cat.png?size=1 identity"
    assert answer.url.host == "files.example"


async def test_a_private_host_is_not_connected_to() -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    async with serving(note) as base, guarded_client(Guard(), timeout=5) as client:
        with pytest.raises(AddressRefused):
            await client.get(base)
    assert not asked


async def test_a_name_that_changes_between_check_and_connection_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(monkeypatch, [["192.0.2.1"], ["127.0.0.1"]])
    async with guarded_client(Guard(["10.0.0.0/8"]), timeout=5) as client:
        with pytest.raises(AddressRefused):
            await client.get("http://rebinding.example:8080/")


async def test_every_hop_of_a_redirect_is_looked_at() -> None:
    async def to_metadata(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data")

    async with serving(to_metadata) as base:
        port = httpx.URL(base).port
        async with guarded_client(Guard([f"127.0.0.1:{port}"]), timeout=5) as client:
            with pytest.raises(AddressRefused, match=r"169\.254\.169\.254"):
                await client.get(base, follow_redirects=True)


async def test_the_next_address_is_tried_when_one_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(monkeypatch, [["127.0.0.2", "127.0.0.1"]])
    async with serving(hello) as base, guarded_client(Guard(["files.example"]), timeout=5) as client:
        answer = await client.post(f"http://files.example:{httpx.URL(base).port}/", content=b"body")
    assert answer.is_success


async def test_a_name_that_does_not_resolve_is_an_error_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(monkeypatch, [])
    async with guarded_client(Guard(), timeout=5) as client:
        with pytest.raises(httpx.ConnectError, match="cannot be resolved"):
            await client.get("http://nowhere.example/")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    async with serving(proxy) as elsewhere, serving(hello) as base:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere)
        async with guarded_client(Guard(["127.0.0.1"]), timeout=5) as client:
            assert (await client.get(base)).is_success
    assert not asked


async def test_the_certificate_must_be_that_of_the_name_in_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    wrapped = ssl.SSLContext.wrap_bio

    def wrap_bio(self: ssl.SSLContext, *args: Any, **options: Any) -> Any:
        asked.append(options["server_hostname"].decode())
        return wrapped(self, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", wrap_bio)
    lead_to(monkeypatch, [["127.0.0.1"]])
    async with serving(hello) as base, guarded_client(Guard(["files.example"]), timeout=5) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://files.example:{httpx.URL(base).port}/")
    assert asked == ["files.example"]
