"""The fake server."""

import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import anyio
from aiohttp import web
from attrs import define, field

from emp_core.testing.fake_service import FakeService
from emp_openai.testing.talk import picture, told_by, words_of

__all__ = ["FakeOpenAI", "Faults", "Seen"]

_KINDS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/images/generations": "images",
    "/v1/images/edits": "edits",
    "/v1/embeddings": "embeddings",
}
_ERRORS: Mapping[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "ratelimit": (
        429,
        {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"},
        {"Retry-After": "2", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"},
    ),
    "quota": (
        429,
        {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"},
        {"Retry-After": "1"},
    ),
    "overloaded": (503, {"message": "The server is overloaded", "code": "server_is_overloaded"}, {}),
    "servererror": (500, {"message": "The server had an error", "type": "server_error", "code": None}, {}),
    "blocked": (
        400,
        {
            "message": "Your request was rejected by the safety system.",
            "type": "image_generation_user_error",
            "code": "moderation_blocked",
        },
        {},
    ),
    "toolong": (400, {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}, {}),
}
"""Answers to what ends with these words: status, error, headers."""


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
    """

    cut_after: int | None = None
    no_end_after: int | None = None
    error_after: int | None = None


@define(eq=False)
class _Stored:
    """A background response."""

    id: str
    events: list[dict[str, Any]] = field(factory=list)
    response: dict[str, Any] = field(factory=dict)
    grown: anyio.Event = field(factory=anyio.Event)
    scope: Any = None

    def add(self, kind: str, **facts: Any) -> None:
        """The next event."""
        self.events.append({"type": kind, "sequence_number": len(self.events), **facts})
        grown, self.grown = self.grown, anyio.Event()
        grown.set()


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
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: tuple[str, ...] | None = None,
        background: bool = True,
        pause: Callable[[], Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.faults = Faults()
        self.seen: list[Seen] = []
        """Every request for an answer, in order."""
        self.responses: dict[str, _Stored] = {}
        self.cancelled: list[str] = []
        """Ids of responses that somebody cancelled."""
        self.limit = limit
        self._api_key = api_key
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
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return _error(
                401, {"message": "Invalid API key", "type": "authentication_error", "code": "invalid_api_key"}
            )
        if request.method == "GET" and request.path == "/v1/models":
            names = self._models or ("fake",)
            return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
        if request.method == "POST" and request.path in _KINDS:
            return await self._ask(request, _KINDS[request.path])
        parts = request.path.split("/")
        if parts[:3] == ["", "v1", "responses"] and len(parts) > 3:
            return await self._stored(request, parts[3], parts[4] if len(parts) > 4 else "")
        return _error(404, {"message": "Not found", "type": "not_found_error", "code": None})

    async def _ask(self, request: web.Request, kind: str) -> web.StreamResponse:
        try:
            body = await _body_of(request)
        except ValueError as error:
            return _error(400, {"message": f"Malformed JSON: {error}", "type": "invalid_request_error"})
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
            seen.state = "done" if seen.state == "running" else seen.state
            return response
        except BaseException:
            seen.state = "cancelled"
            raise
        finally:
            self._note()

    def _refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        model = body.get("model")
        if not isinstance(model, str) or (self._models is not None and model not in self._models):
            said = {"message": f"The model `{model}` does not exist", "code": "model_not_found"}
            return _error(404, {**said, "type": "invalid_request_error"})
        word = (told_by(body).split() or [""])[-1]
        if self.limit is not None:
            if self.limit <= 0:
                word = "ratelimit"
            self.limit -= 1
        if word in _ERRORS:
            status, error, headers = _ERRORS[word]
            return _error(status, error, headers)
        return None

    def _headers(self) -> dict[str, str]:
        headers = {"x-request-id": f"req_{next(self._numbers)}"}
        if self.limit is not None:
            headers |= {"x-ratelimit-remaining-requests": str(max(0, self.limit)), "x-ratelimit-reset-requests": "1s"}
        return headers

    # -- chats ---------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        told, model = told_by(seen.body), seen.body["model"]
        identity = {"id": f"chatcmpl-{next(self._numbers)}", "created": 1, "model": model}
        most = seen.body.get("max_completion_tokens", seen.body.get("max_tokens"))
        words = list(itertools.islice(words_of(told), 5000 if most is None else most))
        usage = {"prompt_tokens": len(told.split()), "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        finish = "length" if most is not None and len(words) == most else "stop"
        finish = "content_filter" if told.endswith("filtered") else finish
        refusal = "I cannot help with that." if told.endswith("refuse") else None
        calls = _CALLS if told.endswith("weather") and seen.body.get("tools") else None
        if not seen.body.get("stream"):
            message = {"role": "assistant", "content": None if refusal else "".join(words), "refusal": refusal}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            whole = {**identity, "object": "chat.completion", "choices": [choice], "usage": usage}
            return web.json_response(whole, headers=self._headers())

        def chunks() -> Iterator[dict[str, Any]]:
            def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
                choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
                return {**identity, "object": "chat.completion.chunk", "choices": [choice]}

            yield chunk({"role": "assistant", "content": ""})
            if refusal:
                yield chunk({"refusal": refusal})
            elif calls:
                yield from (chunk({"tool_calls": [call]}) for call in calls)
            else:
                yield from (chunk({"content": word}) for word in words)
            yield chunk({}, "tool_calls" if calls else finish)
            if (seen.body.get("stream_options") or {}).get("include_usage"):
                yield {**identity, "object": "chat.completion.chunk", "choices": [], "usage": usage}

        return await self._stream(request, seen, chunks(), named=False)

    # -- responses -----------------------------------------------------------------------------------------------

    async def _respond(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        stored = _Stored(f"resp_{next(self._numbers)}")
        background = bool(seen.body.get("background")) and self._background
        stored.response = {
            "id": stored.id,
            "object": "response",
            "model": seen.body["model"],
            "status": "queued" if background else "in_progress",
            "background": background,
            "output": [],
        }
        stored.add("response.created", response=dict(stored.response))
        if background:
            self.responses[stored.id] = stored
            stored.scope = self.start(self._write(stored, seen.body))
            if not seen.body.get("stream"):
                return web.json_response(stored.response, headers=self._headers())
            return await self._follow(request, seen, stored, 0)
        await self._write(stored, seen.body)
        if not seen.body.get("stream"):
            return web.json_response(stored.response, headers=self._headers())
        return await self._stream(request, seen, iter(stored.events), named=True)

    async def _write(self, stored: _Stored, body: Mapping[str, Any]) -> None:
        """Write a response, whether anybody listens or not."""
        async with self.job():
            await self._write_on(stored, body)

    async def _write_on(self, stored: _Stored, body: Mapping[str, Any]) -> None:
        told = told_by(body)
        stored.response["status"] = "in_progress"
        stored.add("response.in_progress", response=dict(stored.response))
        words = []
        for word in words_of(told):
            await self._pause()
            words.append(word)
            stored.add("response.output_text.delta", output_index=0, content_index=0, delta=word)
            self._note()
        part = {"type": "output_text", "text": "".join(words), "annotations": []}
        if told.endswith("refuse"):
            part = {"type": "refusal", "refusal": "I cannot help with that."}
        item = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
        usage = {"input_tokens": len(told.split()), "output_tokens": len(words)}
        status = "failed" if told.endswith("fail") else "incomplete" if told.endswith("unfinished") else "completed"
        stored.response |= {"status": status, "output": [item], "usage": {**usage, "total_tokens": sum(usage.values())}}
        if status == "failed":
            stored.response["error"] = {"code": "server_error", "message": "The model failed"}
        if status == "incomplete":
            stored.response["incomplete_details"] = {"reason": "max_output_tokens"}
        stored.add(f"response.{status}", response=dict(stored.response))
        self._note()

    async def _follow(self, request: web.Request, seen: Seen, stored: _Stored, start: int) -> web.StreamResponse:
        response = await self._begin_stream(request)
        place = start
        while True:
            while place < len(stored.events):
                if self._breaks(request, seen):
                    return response
                await _send(response, stored.events[place], named=True)
                place += 1
                seen.sent += 1
                self._note()
            if stored.response["status"] in ("completed", "failed", "incomplete", "cancelled"):
                await response.write_eof()
                return response
            await stored.grown.wait()

    async def _stored(self, request: web.Request, name: str, what: str) -> web.StreamResponse:
        stored = self.responses.get(name)
        if stored is None:
            return _error(404, {"message": f"Response with id '{name}' not found.", "type": "invalid_request_error"})
        if request.method == "POST" and what == "cancel":
            self.cancelled.append(name)
            stored.scope.cancel()
            stored.response["status"] = "cancelled"
            stored.add("response.cancelled", response=dict(stored.response))
            self._note()
            return web.json_response(stored.response)
        if request.query.get("stream") == "true":
            seen = Seen("follow", {}, dict(request.headers))
            return await self._follow(request, seen, stored, int(request.query.get("starting_after", -1)) + 1)
        return web.json_response(stored.response)

    # -- pictures and vectors ------------------------------------------------------------------------------------

    async def _paint(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        shade = zlib.crc32(told_by(seen.body).encode())
        usage = {"input_tokens": 3, "output_tokens": 100, "total_tokens": 103}
        text = told_by(seen.body).endswith("words")
        pictures = [
            "SSBjYW5ub3QgcGFpbnQgdGhhdC4=" if text else picture(shade + n) for n in range(int(seen.body.get("n") or 1))
        ]
        prefix = "image_generation" if seen.kind == "images" else "image_edit"
        if seen.body.get("stream") in (True, "true"):
            partial = int(seen.body.get("partial_images") or 0)
            events = [
                {"type": f"{prefix}.partial_image", "partial_image_index": n, "b64_json": picture(shade + 50 + n)}
                for n in range(partial)
            ]
            events += [{"type": f"{prefix}.completed", "b64_json": one, "usage": usage} for one in pictures]
            return await self._stream(request, seen, iter(events), named=True)
        told = {"created": 1, "data": [{"b64_json": one} for one in pictures], "usage": usage}
        return web.json_response(told, headers=self._headers())

    async def _embed(self, request: web.Request, seen: Seen) -> web.StreamResponse:  # noqa: ARG002 - as the others
        texts = seen.body.get("input")
        texts = texts if isinstance(texts, list) else [texts]
        length = int(seen.body.get("dimensions") or 4)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": [float(zlib.crc32(f"{text}{n}".encode()) % 7) for n in range(length)],
            }
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        told = {"object": "list", "data": data, "model": seen.body["model"], "usage": usage}
        return web.json_response(told, headers=self._headers())

    # -- streams -------------------------------------------------------------------------------------------------

    async def _begin_stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **self._headers()})
        await response.prepare(request)
        return response

    def _breaks(self, request: web.Request, seen: Seen) -> bool:
        if seen.sent != self.faults.cut_after or request.transport is None:
            return False
        seen.state = "failed"
        request.transport.abort()
        return True

    async def _stream(
        self, request: web.Request, seen: Seen, events: Iterator[Mapping[str, Any]], *, named: bool
    ) -> web.StreamResponse:
        response = await self._begin_stream(request)
        for event in events:
            await self._pause()
            if self._breaks(request, seen):
                return response
            if seen.sent == self.faults.error_after:
                seen.state = "failed"
                await _send(
                    response, {"error": {"message": "The server had an error", "type": "server_error"}}, named=False
                )
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


_CALLS = (
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city":'}},
    {"index": 0, "function": {"arguments": '"Paris"}'}},
)


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


def _error(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"param": None, **error}}, status=status, headers=headers)
