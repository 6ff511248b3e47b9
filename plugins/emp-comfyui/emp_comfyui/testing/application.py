"""The web application: all routes, twice (also under ``/api``), behind the origin check, the faults and the record."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from emp_comfyui.testing.records import RequestRecord
from emp_comfyui.testing.routes_files import FileRoutes
from emp_comfyui.testing.routes_info import InfoRoutes
from emp_comfyui.testing.routes_jobs import JobRoutes
from emp_comfyui.testing.routes_prompts import PromptRoutes

if TYPE_CHECKING:
    from emp_comfyui.testing.faults import HttpFault
    from emp_comfyui.testing.server import FakeComfyUI

_TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"
_FRONT_PAGE = "<!doctype html><title>ComfyUI</title><p>A fake ComfyUI server for tests.</p>"


def build_application(server: FakeComfyUI) -> web.Application:
    """The application of one life of the server."""
    layers = _Layers(server)
    inside = (layers.record, layers.authorized, layers.origin_only, layers.go_wrong)
    passed = [_as_middleware(layer) for layer in inside]
    app = web.Application(client_max_size=server.max_upload_size, middlewares=passed)

    async def websocket(request: web.Request) -> web.StreamResponse:
        return await server.hub.serve(request, server.queue_info())

    async def front_page(request: web.Request) -> web.Response:
        del request
        return web.Response(text=_FRONT_PAGE, content_type="text/html")

    async def nothing_here(request: web.Request) -> web.Response:
        del request
        return web.Response(status=404, headers={"Content-Type": "application/octet-stream"})

    parts = (PromptRoutes(server), FileRoutes(server), InfoRoutes(server))
    routes = [web.get("/ws", websocket), *(route for part in parts for route in part.routes())]
    app.add_routes([web.get("/", front_page)])
    app.add_routes(routes)
    app.add_routes([web.route(route.method, f"/api{route.path}", route.handler, **route.kwargs) for route in routes])
    app.add_routes(JobRoutes(server).routes())
    # The real server looks for a file of its front end under every other path.
    app.add_routes([web.get("/{path:.*}", nothing_here)])
    if not server.prefix:
        return app
    proxy = web.Application(client_max_size=server.max_upload_size)
    proxy.add_subapp(server.prefix, app)
    return proxy


Layer = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


def _as_middleware(layer: Layer) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await layer(request, handler)

    return middleware


class _Layers:
    """What every request passes."""

    def __init__(self, server: FakeComfyUI) -> None:
        self._server = server

    async def record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status: int | None = None
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        except Exception:
            # What the real server does with anything it cannot handle; clients know the text.
            status = 500
            response = web.Response(status=500, text=_TROUBLE)
            response.force_close()
        finally:
            path = _without_api(request.path.removeprefix(self._server.prefix))
            self._server.requests.append(RequestRecord(request.method, path, dict(request.query), status))
            self._server.note_change()
        return response

    async def authorized(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = self._server.authorization
        if wanted is not None and request.headers.get("Authorization") != wanted:
            return web.Response(status=401, text="401 Authorization Required")
        return await handler(request)

    async def origin_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_foreign(request.headers.get("Host"), request.headers.get("Origin")):
            return web.Response(status=403)
        if request.method == "OPTIONS":
            return web.Response()
        return await handler(request)

    async def go_wrong(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        path = _without_api(request.path.removeprefix(self._server.prefix))
        fault = self._server.faults.http_fault(request.method, path)
        if fault is None:
            return await handler(request)
        self._server.note_change()
        match fault.kind:
            case "delay":
                await (self._server.sleep or anyio.sleep)(fault.delay_s)
                return await handler(request)
            case "lose_answer":
                await handler(request)
                return _cut(request)
            case "die":
                await handler(request)
                self._server.die()
                return web.Response(status=503)
            case "drop":
                return _cut(request)
            case "hang":
                await self._server.dead()
                return web.Response(status=503)
            case _:
                return _wrong_answer(fault)


def _wrong_answer(fault: HttpFault) -> web.Response:
    if fault.kind == "garbage":
        return web.Response(text='{"prompt_id": "half an ans', content_type="application/json")
    if fault.kind == "oversized":
        return web.Response(body=b'"' + b"x" * (fault.size - 2) + b'"', content_type="application/json")
    return web.Response(status=fault.status, text=fault.body)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _without_api(path: str) -> str:
    return path.removeprefix("/api") if path.startswith("/api/") else path


def _is_foreign(host: str | None, origin: str | None) -> bool:
    """Whether a request comes from another site's page to a server on a loopback address."""
    if not host or not origin:
        return False
    own, other = urlsplit(f"//{host.lower()}"), urlsplit(origin)
    if not other.netloc or not _is_loopback(own.hostname):
        return False
    compared = own.hostname if other.port is None else own.netloc
    return compared != other.netloc.lower()


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
