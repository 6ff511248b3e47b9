"""The fake server."""

import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal

import anyio
from aiohttp import web
from attrs import define, field

from emp_core.testing.fake_service import FakeService
from emp_openai.testing.answers import Chat, embedded, painted, painting
from emp_openai.testing.refusals import error, refused
from emp_openai.testing.stored import Stored
from emp_openai.testing.talk import PICTURE, told_by

__all__ = ["FakeOpenAI", "Faults", "Seen"]

_KINDS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/images/generations": "images",
    "/v1/images/edits": "edits",
    "/v1/embeddings": "embeddings",
}


@define(eq=False)
class Seen:
    """A request for an answer.

    Attributes:
        state: running, ended well, ended by an error, or given up because its client left.
        sent: events sent so far.
    """

    kind: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(repr=False)
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    sent: int = 0


@define
class Faults:
    """What goes wrong. May be changed at any time.

    Attributes:
        cut_after: break the connection off after so many events; None: do not.
        no_end_after: end an answer after so many events in good order, but without its last word; None: do not.
        error_after: send an error after so many events; None: do not.
        looks_in_vain: so many questions after a response fail.
        looks_unknown: so many are answered as if nobody knew it.
    """

    cut_after: int | None = None
    no_end_after: int | None = None
    error_after: int | None = None
    looks_in_vain: int = 0
    looks_unknown: int = 0


class FakeOpenAI(FakeService):
    """A server that speaks OpenAI's API, with chats, responses in the background, pictures and embeddings.

    ::

        async with FakeOpenAI() as server:
            connector = OpenAIConnector(ServiceConfig("openai", {"OPENAI_BASE_URL": server.base_url}))
            ...
            assert server.seen[0].state == "cancelled"

    Args:
        api_key: what it asks for; None: nothing.
        models: those that it has; None: all.
        background: whether it knows background responses.
        pause: lets time pass before each event.
        limit: answers that it gives before its rate limit is met; None: no limit. Raise it to let more through.
        reset: when the limit resets, as its headers tell it.

    Attributes:
        out_of: what it says when its limit is met: ``ratelimit`` or ``quota``.
        limited_models: the only models that the limit holds for; empty: it holds for all.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: tuple[str, ...] | None = None,
        background: bool = True,
        pause: Callable[[], Any] | None = None,
        limit: int | None = None,
        reset: str = "1s",
    ) -> None:
        super().__init__()
        self.faults = Faults()
        self.seen: list[Seen] = []
        """Every request for an answer, in order."""
        self.responses: dict[str, Stored] = {}
        self.cancelled: list[str] = []
        """Ids of responses that somebody cancelled."""
        self.followed: list[str] = []
        """Ids of responses whose events somebody asked for by their id."""
        self.limit = limit
        self.out_of = "ratelimit"
        self.limited_models: tuple[str, ...] = ()
        self._reset = reset
        self.api_key = api_key
        self._models = models
        self._background = background
        self._pause = pause or anyio.lowlevel.checkpoint
        self._numbers = itertools.count(1)
        self._news = anyio.Event()

    @property
    def base_url(self) -> str:
        """Address with the API's version."""
        return f"{self.url}/v1"

    async def until(self, met: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until a condition on what the server saw holds. Raises TimeoutError when it does not in time."""
        with anyio.fail_after(timeout_s):
            while not met():
                await self._news.wait()

    def _note(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as the API does."""
        if request.method == "GET" and request.path == "/picture.png":
            return web.Response(body=base64.b64decode(PICTURE), content_type="image/png")
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return error(401, {"message": "Invalid API key", "type": "authentication_error", "code": "invalid_api_key"})
        if request.method == "GET" and request.path == "/v1/models":
            names = self._models or ("fake",)
            return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
        if request.method == "POST" and request.path in _KINDS:
            return await self._ask(request, _KINDS[request.path])
        parts = request.path.split("/")
        if parts[:3] == ["", "v1", "responses"] and len(parts) > 3:
            return await self._stored(request, parts[3], parts[4] if len(parts) > 4 else "")
        return error(404, {"message": "Not found", "type": "not_found_error", "code": None})

    async def _ask(self, request: web.Request, kind: str) -> web.StreamResponse:
        try:
            body = await _body_of(request)
        except ValueError as problem:
            return error(400, {"message": f"Malformed JSON: {problem}", "type": "invalid_request_error"})
        seen = Seen(kind, body, dict(request.headers))
        self.seen.append(seen)
        self._note()
        try:
            refused = self._refusal(body)
            if refused is not None:
                seen.state = "failed"
                return refused
            if kind == "responses":
                response = await self._respond(request, seen)
            else:
                async with self.job():
                    give = {"chat": self._chat, "embeddings": self._embed}.get(kind, self._paint)
                    response = await give(request, seen)
        except BaseException:
            seen.state = "cancelled"
            raise
        else:
            seen.state = "done" if seen.state == "running" else seen.state
            return response
        finally:
            self._note()

    def _refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        model = body.get("model")
        if not isinstance(model, str) or (self._models is not None and model not in self._models):
            said = {"message": f"The model `{model}` does not exist", "code": "model_not_found"}
            return error(404, {**said, "type": "invalid_request_error"})
        word = (told_by(body).split() or [""])[-1]
        if self.limit is not None and self._is_limited(body):
            word = self.out_of if self.limit <= 0 else word
            self.limit -= 1
        return refused(word, self._headers(body))

    def _is_limited(self, body: Mapping[str, Any]) -> bool:
        return not self.limited_models or body.get("model") in self.limited_models

    def _headers(self, body: Mapping[str, Any]) -> dict[str, str]:
        headers = {"x-request-id": f"req_{next(self._numbers)}"}
        if self.limit is not None and self._is_limited(body):
            headers |= {
                "x-ratelimit-remaining-requests": str(max(0, self.limit)),
                "x-ratelimit-reset-requests": self._reset,
            }
        return headers

    # -- answers -------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        chat = Chat(f"chatcmpl-{next(self._numbers)}", seen.body)
        if not seen.body.get("stream"):
            return web.json_response(chat.whole(), headers=self._headers(seen.body))
        return await self._stream(request, seen, self._paced(chat.chunks()), named=False)

    async def _paint(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        if seen.body.get("stream") in (True, "true"):
            events = self._paced(painting(seen.kind, seen.body))
            return await self._stream(request, seen, events, named=True)
        return web.json_response(painted(seen.body, f"{self.url}/picture.png"), headers=self._headers(seen.body))

    async def _embed(self, _: web.Request, seen: Seen) -> web.StreamResponse:
        return web.json_response(embedded(seen.body), headers=self._headers(seen.body))

    # -- responses -----------------------------------------------------------------------------------------------

    async def _respond(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        background = bool(seen.body.get("background")) and self._background
        stored = Stored.begun(f"resp_{next(self._numbers)}", seen.body, background=background)
        if background:
            self.responses[stored.id] = stored
            stored.scope = self.start(self._write(stored, seen.body))
        else:
            await self._write(stored, seen.body)
        if not seen.body.get("stream"):
            return web.json_response(stored.response, headers=self._headers(seen.body))
        return await self._stream(request, seen, stored.follow(0), named=True)

    async def _write(self, stored: Stored, body: Mapping[str, Any]) -> None:
        async with self.job():
            await stored.write(body, self._pause)

    async def _stored(self, request: web.Request, name: str, what: str) -> web.StreamResponse:
        stored = self.responses.get(name)
        if self.faults.looks_unknown > 0:
            self.faults.looks_unknown -= 1
            stored = None
        if stored is None:
            return error(404, {"message": f"Response with id '{name}' not found.", "type": "invalid_request_error"})
        if request.method == "POST" and what == "cancel":
            self.cancelled.append(name)
            stored.cancel()
            self._note()
            return web.json_response(stored.response)
        if self.faults.looks_in_vain > 0:
            self.faults.looks_in_vain -= 1
            return error(500, {"message": "The server had an error", "type": "server_error"})
        if request.query.get("stream") == "true":
            seen = Seen("follow", {}, dict(request.headers))
            self.followed.append(name)
            self._note()
            events = stored.follow(int(request.query.get("starting_after", -1)) + 1)
            return await self._stream(request, seen, events, named=True)
        return web.json_response(stored.response)

    # -- streams -------------------------------------------------------------------------------------------------

    async def _paced(self, events: Iterator[Mapping[str, Any]]) -> AsyncIterator[Mapping[str, Any]]:
        for event in events:
            await self._pause()
            yield event

    async def _stream(
        self, request: web.Request, seen: Seen, events: AsyncIterator[Mapping[str, Any]], *, named: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **self._headers(seen.body)})
        await response.prepare(request)
        async for event in events:
            if seen.sent == self.faults.cut_after and request.transport is not None:
                seen.state = "failed"
                request.transport.abort()
                return response
            if seen.sent == self.faults.error_after:
                seen.state = "failed"
                await _send(response, _BROKEN_OFF, named=False)
                break
            if seen.sent == self.faults.no_end_after:
                seen.state = "failed"
                break
            await _send(response, event, named=named)
            seen.sent += 1
            self._note()
        if not named:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


_BROKEN_OFF = {"error": {"message": "The server had an error", "type": "server_error"}}


async def _send(response: web.StreamResponse, event: Mapping[str, Any], *, named: bool) -> None:
    name = f"event: {event['type']}\n" if named else ""
    await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())


async def _body_of(request: web.Request) -> dict[str, Any]:
    if request.content_type.startswith("multipart/"):
        form = await request.post()
        return {
            name: value if isinstance(value, str) else {"name": value.filename, "size": len(value.file.read())}
            for name, value in form.items()
            if not isinstance(value, bytes | bytearray)
        }
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("expected an object")  # noqa: TRY004
    return body
