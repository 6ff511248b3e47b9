"""The fake Ollama server."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from aiohttp import web
from attrs import define

from emp_core.testing.fake_service import FakeService
from emp_ollama.models import full_name
from emp_ollama.sizing import SIZING_OPTIONS
from emp_ollama.testing.models import FakeModel, Said, as_json, logprobs_of, tiny_models, until_stop
from emp_ollama.testing.records import Seen
from emp_ollama.testing.refusals import error, refusal, told
from emp_ollama.testing.runners import Busy, Runners

__all__ = ["FakeOllama", "Faults"]

_TASKS = {"/api/generate": "completion", "/api/chat": "completion", "/api/embed": "embedding"}
_ENDLESS = 10
"""An answer is bounded by this many times its context's length."""


@define
class Faults:
    """What goes wrong. May be changed at any time.

    Attributes:
        status: answer every request for an answer with this status and ``body``; None: do not.
        drop_after: cut the connection after so many frames; None: do not.
        garbage_after: send a line that is no JSON after so many frames; None: do not.
        registry: models that can be pulled, with their sizes in bytes.
        pull_error: what a pull says instead of pulling.
    """

    status: int | None = None
    body: str = ""
    drop_after: int | None = None
    garbage_after: int | None = None
    pull_error: str | None = None


class FakeOllama(FakeService):
    """An Ollama server that needs no GPU, no model and no Ollama; it behaves as 0.33 did when it was recorded.

    ::

        async with FakeOllama() as server:
            connector = OllamaConnector(ServiceConfig("ollama", {"OLLAMA_HOST": server.url}))
            ...
            assert server.seen[0].state == "cancelled"

    Args:
        models: by full name.
        registry: models that can be pulled.
        slots: answers at once for each model (``OLLAMA_NUM_PARALLEL``).
        max_loaded, max_queue: as ``OLLAMA_MAX_LOADED_MODELS`` and ``OLLAMA_MAX_QUEUE``.
        pause: lets time pass before each frame and each load; called with ``"frame"`` or ``"load"``.
        api_key: what a proxy in front of it would ask for.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel] | None = None,
        *,
        registry: Mapping[str, FakeModel] | None = None,
        slots: int = 1,
        max_loaded: int = 3,
        max_queue: int = 512,
        version: str = "0.33.0",
        pause: Callable[[str], Any] | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__()
        self.models = dict(tiny_models() if models is None else models)
        self.registry = dict(registry or {})
        self.version = version
        self.faults = Faults()
        self.seen: list[Seen] = []
        """Every request for an answer, in order."""
        self.pulled_bytes: dict[str, int] = {}
        """What pulls that were broken off left on the disk."""
        self.pulling = 0
        """Pulls that go on."""
        self._api_key = api_key
        self._pause = pause or _no_time
        self._news = anyio.Event()
        self.runners = Runners(
            slots=slots,
            max_loaded=max_loaded,
            max_queue=max_queue,
            load=lambda: self._pause("load"),
            changed=self._note,
        )

    async def until(self, met: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until a condition on what the server saw holds. Raises TimeoutError when it does not in time."""
        with anyio.fail_after(timeout_s):
            while not met():
                await self._news.wait()

    async def kill(self) -> None:
        """End as ``kill -9`` ends a server. Models that were in memory are not any more."""
        await super().kill()
        self.runners.loaded.clear()

    def _note(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as Ollama does."""
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return error(401, "unauthorized")
        match request.method, request.path:
            case ("GET" | "HEAD", "/"):
                return web.Response(text="Ollama is running")
            case "GET", "/api/version":
                return web.json_response({"version": self.version})
            case "GET", "/api/tags":
                return web.json_response({"models": [self._listed(name) for name in self.models]})
            case "GET", "/api/ps":
                return web.json_response({"models": [self._in_memory(name) for name in self.runners.loaded]})
            case "POST", path if path in _TASKS:
                return await self._task(request)
            case "POST", "/api/show":
                body = await _body_of(request)
                name = full_name(str(body.get("model", "")))
                if name not in self.models:
                    return error(404, f"model '{name}' not found")
                return web.json_response({"capabilities": list(self.models[name].capabilities)})
            case "POST", "/api/pull":
                return await self._pull(request)
        return web.Response(status=404, text="404 page not found")

    # -- answers -------------------------------------------------------------------------------------------------

    async def _task(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await _body_of(request)
        except ValueError as wrong:
            return error(400, str(wrong))
        seen = Seen(request.path, body)
        self.seen.append(seen)
        self._note()
        if self.faults.status is not None:
            seen.state = "failed"
            return web.Response(status=self.faults.status, text=self.faults.body)
        refused = refusal(request.path, body, self.models)
        if refused is not None:
            seen.state = "failed"
            return refused
        name = full_name(seen.model)
        try:
            async with self.job():
                response = await self._placed(request, seen, name, self.models[name])
        except Busy:
            seen.state = "failed"
            response = error(503, "server busy, please try again.  maximum pending requests exceeded")
        except BaseException:
            seen.state = "cancelled"
            raise
        finally:
            self._note()
        return response

    async def _placed(self, request: web.Request, seen: Seen, name: str, model: FakeModel) -> web.StreamResponse:
        if model.broken is not None:
            seen.state = "failed"
            return error(500, model.broken)
        body = seen.body
        if body.get("keep_alive") == 0 and not told(body) and request.path != "/api/embed":
            self.runners.unload(name)
            seen.state = "done"
            return self._whole(seen, {"done": True, "done_reason": "unload"})
        options = body.get("options") or {}
        sizing = {key: value for key, value in {**options, **body}.items() if key in SIZING_OPTIONS}
        async with self.runners.slot(name, model, sizing, seen) as fresh:
            if request.path == "/api/embed":
                texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
                vectors = [model.embedding(str(text), body.get("dimensions")) for text in texts]
                seen.state = "done"
                facts = {"total_duration": 5_000_000, "load_duration": 600_000, "prompt_eval_count": 3 * len(texts)}
                return web.json_response({"model": seen.model, "embeddings": vectors, **facts})
            if not told(body):
                seen.state = "done"
                return self._whole(seen, {"done": True, "done_reason": "load"})
            frames = self._frames(seen, model, fresh=fresh)
            return (
                await self._collected(seen, frames)
                if body.get("stream") is False
                else await self._streamed(request, seen, frames)
            )

    async def _frames(self, seen: Seen, model: FakeModel, *, fresh: bool) -> AsyncIterator[dict[str, Any]]:
        """The frames of an answer, the last one included; an error in mid-answer is one, too."""
        body = seen.body
        options = body.get("options") or {}
        most = options.get("num_predict", -1)
        bound = _ENDLESS * options.get("num_ctx", model.context_length)
        count, reason = 0, "stop"
        said = model.says(told(body), tools=bool(body.get("tools")), think=body.get("think"), wanted=body.get("format"))
        for one in until_stop(said, options.get("stop") or ()):
            if count >= (most if most >= 0 else bound):
                reason = "length"
                break
            await self._pause("frame")
            if model.runner_dies_after is not None and count >= model.runner_dies_after:
                self.runners.unload(full_name(seen.model))
                yield {"error": "an error was encountered while running the model: unexpected EOF"}
                return
            count += 1
            yield self._frame(seen, one)
        if model.repeats_itself:
            return
        yield {
            **self._frame(seen, Said()),
            "done": True,
            "done_reason": reason,
            "total_duration": 6_000_000 + 1_000_000 * count,
            "load_duration": 520_000_000 if fresh else 800_000,
            "prompt_eval_count": len(told(body).split()) + 1,
            "prompt_eval_duration": 900_000,
            "eval_count": count + 1,
            "eval_duration": 1_000_000 * (count + 1),
        }

    def _frame(self, seen: Seen, said: Said) -> dict[str, Any]:
        frame: dict[str, Any] = {"model": seen.model, "created_at": datetime.now(UTC).isoformat(), "done": False}
        if seen.body.get("logprobs") and (sure := logprobs_of(said, seen.body.get("top_logprobs", 0))):
            frame["logprobs"] = sure
        thinking = {"thinking": said.thinking} if said.thinking else {}
        if seen.path == "/api/generate":
            return {**frame, "response": said.text, **thinking}
        calls = {"tool_calls": list(said.tool_calls)} if said.tool_calls else {}
        return {**frame, "message": {"role": "assistant", "content": said.text, **thinking, **calls}}

    async def _streamed(
        self, request: web.Request, seen: Seen, frames: AsyncIterator[dict[str, Any]]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        seen.state = "done"
        async for frame in frames:
            if not response.prepared:
                await response.prepare(request)  # no byte before the first frame, not even headers
                seen.state = "running"
            if seen.frames == self.faults.drop_after and request.transport is not None:
                request.transport.abort()
                seen.state = "failed"
                return response
            if seen.frames == self.faults.garbage_after:
                await response.write(b"<html>oops\n")
            await response.write(as_json(frame))
            seen.frames += 1
            seen.state = "failed" if "error" in frame else "done" if frame["done"] else "running"
            self._note()
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    async def _collected(self, seen: Seen, frames: AsyncIterator[dict[str, Any]]) -> web.Response:
        text = ""
        last: dict[str, Any] = {}
        async for frame in frames:
            if "error" in frame:
                seen.state = "failed"
                return error(500, frame["error"])
            text += frame.get("response", "") or frame.get("message", {}).get("content", "")
            last = frame
        seen.state = "done"
        whole = {"message": {"role": "assistant", "content": text}} if "message" in last else {"response": text}
        return web.json_response({**last, **whole})

    def _whole(self, seen: Seen, facts: Mapping[str, Any]) -> web.Response:
        return web.json_response({**self._frame(seen, Said()), **facts})

    # -- models --------------------------------------------------------------------------------------------------

    def _listed(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        return {
            "name": name,
            "model": name,
            "size": model.size_bytes,
            "digest": f"{abs(hash(name)):064x}"[:64],
            "capabilities": list(model.capabilities),
            "details": {"format": "gguf", "family": "llama"},
        }

    def _in_memory(self, name: str) -> dict[str, Any]:
        runner = self.runners.loaded[name]
        length = runner.sizing.get("num_ctx", runner.model.context_length)
        expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        return {**self._listed(name), "size_vram": 0, "context_length": length, "expires_at": expires}

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await _body_of(request)
        given = str(body.get("model", ""))
        if not given or " " in given:
            return error(400, "invalid model name")
        name = full_name(given)
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(as_json({"status": "pulling manifest"}))
        model = self.models.get(name) or self.registry.get(name)
        if self.faults.pull_error is not None or model is None:
            said = self.faults.pull_error or "pull model manifest: file does not exist"
            await response.write(as_json({"error": said}))
            return response
        self.pulling += 1
        try:
            await self._get_layers(response, name, model)
        finally:
            self.pulling -= 1
            self._note()
        return response

    async def _get_layers(self, response: web.StreamResponse, name: str, model: FakeModel) -> None:
        digest = f"{sum(name.encode()):012x}"
        layer = {"status": f"pulling {digest}", "digest": f"sha256:{digest}", "total": model.size_bytes}
        step = max(1, model.size_bytes // 10)
        got = model.size_bytes if name in self.models else self.pulled_bytes.get(name, 0)
        while True:
            await response.write(as_json({**layer, **({"completed": got} if got else {})}))
            self._note()
            if got >= model.size_bytes:
                break
            await self._pause("pull")
            got = self.pulled_bytes[name] = min(model.size_bytes, got + step)
        self.models[name] = model
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            await response.write(as_json({"status": status}))


async def _no_time(_: str) -> None:
    await anyio.lowlevel.checkpoint()


async def _body_of(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw:
        raise ValueError("missing request body")
    body = json.loads(raw)
    if not isinstance(body, dict):
        raise ValueError("json: cannot unmarshal into Go value of type api.Request")  # noqa: TRY004
    return body
