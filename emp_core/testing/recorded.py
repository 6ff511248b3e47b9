"""Recorded conversations over HTTP, played back to a client under test.

A recording is a JSON file: ``{"scenario", "about", "exchanges": [{"request": {"method", "path", "body"}, "response": {"status",
"headers", "frames": [{"t_ms", "data"}], "closed_by", "transport_error"}}]}``. A frame is one chunk as it came.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
from aiohttp import web
from attrs import define, field, frozen

from emp_core.testing.fake_service import FakeService

__all__ = ["Exchange", "Played", "RecordedService", "Recording", "read_recording"]

_NOT_REPEATED = frozenset({"content-length", "transfer-encoding", "connection", "date", "server", "keep-alive"})


@frozen
class Exchange:
    """A request and its answer.

    Attributes:
        body: the request's body, if it was JSON.
        frames: the answer's chunks, in order.
        cut: whether the middle of its frames was left out.
        ends: who ended it: the server in good order, the server by breaking off, the server by refusing the connection,
            or the client.
    """

    label: str
    method: str
    path: str
    body: Any
    status: int | None
    headers: Mapping[str, str] = field(repr=False)
    frames: Sequence[str] = field(repr=False)
    ends: Literal["whole", "broken", "refused", "client"]
    cut: bool = False


@frozen
class Recording:
    """A scenario as it was recorded."""

    scenario: str
    about: str
    exchanges: tuple[Exchange, ...]


def read_recording(path: Path) -> Recording:
    """A recording from its file."""
    told = json.loads(path.read_text("utf-8"))
    return Recording(told["scenario"], told["about"], tuple(map(_exchange, told["exchanges"])))


def _exchange(told: Mapping[str, Any]) -> Exchange:
    request, response = told["request"], told["response"]
    broken = response.get("transport_error")
    ends: Literal["whole", "broken", "refused", "client"] = "whole"
    if broken:
        ends = "refused" if "refused" in broken else "broken"
    elif response["closed_by"] == "client":
        ends = "client"
    body = request.get("body")
    if isinstance(body, str):  # long ones were cut
        body = None
    return Exchange(
        label=str(told.get("label") or ""),
        method=request["method"],
        path=request["path"],
        body=body,
        status=response["status"],
        headers={name.lower(): value for name, value in response["headers"] or ()},
        frames=tuple(frame["data"] for frame in response["frames"] if "data" in frame),
        ends=ends,
        cut=any("data" not in frame for frame in response["frames"]),
    )


@define(eq=False)
class Played:
    """How an exchange went when it was played back.

    Attributes:
        body: what the client under test sent.
        sent: frames that were sent to it.
        left: set when the client closed the connection before the end.
    """

    exchange: Exchange
    body: bytes
    headers: Mapping[str, str] = field(repr=False)
    sent: int = 0
    left: anyio.Event = field(factory=anyio.Event)


class RecordedService(FakeService):
    """A server that answers each request with the next recorded answer to the same method and path.

    Args:
        exchanges: in order.
        others: answers to what was not recorded, by path: a JSON value for each.
    """

    def __init__(self, exchanges: Sequence[Exchange], *, others: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._left = list(exchanges)
        self._others = dict(others or {})
        self.played: list[Played] = []
        self._news = anyio.Event()

    async def until_sent(self, frames: int, *, request: int = -1) -> None:
        """Wait until so many frames of an answer were sent."""
        while len(self.played) < max(1, request + 1) or self.played[request].sent < frames:
            await self._news.wait()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Play the next answer."""
        body = await request.read()
        exchange = next((one for one in self._left if (one.method, one.path) == (request.method, request.path)), None)
        if exchange is None:
            if request.path in self._others:
                return web.json_response(self._others[request.path])
            return web.Response(status=404, text="not recorded")
        self._left.remove(exchange)
        played = Played(exchange, body, {name.lower(): value for name, value in request.headers.items()})
        self.played.append(played)
        self._note()
        try:
            async with self.job():
                return await self._play(request, played)
        except BaseException:
            played.left.set()
            raise
        finally:
            self._note()

    async def _play(self, request: web.Request, played: Played) -> web.StreamResponse:
        exchange = played.exchange
        if exchange.status is None:
            if exchange.ends == "client":
                await anyio.sleep_forever()
            return _cut(request)
        headers = {name: value for name, value in exchange.headers.items() if name not in _NOT_REPEATED}
        response = web.StreamResponse(status=exchange.status, headers=headers)
        await response.prepare(request)
        for frame in exchange.frames:
            await response.write(frame.encode())
            played.sent += 1
            self._note()
        if exchange.ends == "client":
            await anyio.sleep_forever()
        if exchange.ends == "broken":
            return _cut(request, response)
        await response.write_eof()
        return response

    def _note(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """End the connection as a server does that breaks off: what was sent arrives, and then nothing."""
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()
