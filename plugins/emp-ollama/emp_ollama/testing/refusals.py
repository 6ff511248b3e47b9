"""What the fake server refuses, in the words of the real one."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from emp_ollama.models import full_name
from emp_ollama.testing.models import FakeModel

__all__ = ["error", "refusal", "told"]

_THINK = (True, False, "high", "medium", "low", "max")
_OPTION_TYPES: Mapping[str, tuple[type, ...]] = {"temperature": (int, float), "num_ctx": (int,), "num_predict": (int,)}
_TYPE_NAMES: Mapping[str, str] = {"temperature": "float32", "num_ctx": "integer", "num_predict": "integer"}


def error(status: int, said: str) -> web.Response:
    """An error as Ollama tells it."""
    return web.json_response({"error": said}, status=status)


def told(body: Mapping[str, Any]) -> str:
    """The text that picks the answer: the prompt, or the last message."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return str(messages[-1].get("content", "")) if messages else ""
    return str(body.get("prompt") or "")


def refusal(path: str, body: Mapping[str, Any], models: Mapping[str, FakeModel]) -> web.Response | None:
    """What the server says to a request that it does not take; None: it takes it."""
    given = str(body.get("model", ""))
    model = models.get(full_name(given))
    if not given and path == "/api/chat":
        return error(400, "model is required")
    if " " in given:
        return error(400, "invalid model name")
    if model is None:
        return error(404, f"model '{given}' not found")
    options = body.get("options") or {}
    for name, types in _OPTION_TYPES.items():
        if name in options and not isinstance(options[name], types):
            return error(500, f'option "{name}" must be of type {_TYPE_NAMES[name]}')
    return (
        _refused_task(path, body, model)
        or _refused_thinking(body, model)
        or _refused_pictures(body, model)
        or _refused_keep_alive(body.get("keep_alive"))
    )


def _refused_task(path: str, body: Mapping[str, Any], model: FakeModel) -> web.Response | None:
    given = body["model"]
    if path == "/api/embed":
        if "embedding" not in model.capabilities:
            return error(501, "This server does not support embeddings. Start it with `--embeddings`")
        return None if isinstance(body.get("input"), str | list) else error(400, "invalid input type")
    if "completion" not in model.capabilities:
        return error(400, f'"{given}" does not support {path.removeprefix("/api/")}')
    if body.get("tools") and "tools" not in model.capabilities:
        return error(400, f'"{given}" does not support tools')
    if body.get("suffix") and "insert" not in model.capabilities:
        return error(400, f"registry.ollama.ai/library/{full_name(given)} does not support insert")
    if body.get("raw") and any(body.get(name) for name in ("template", "system", "context")):
        return error(400, "raw mode does not support template, system, or context")
    return None


def _refused_thinking(body: Mapping[str, Any], model: FakeModel) -> web.Response | None:
    think = body.get("think")
    if think is not None and think not in _THINK:
        words = '"high", "medium", "low", "max", true, or false'
        return error(400, f'invalid think value: "{think}" (must be {words})')
    if think and "thinking" not in model.capabilities:
        return error(400, f'"{body["model"]}" does not support thinking')
    return None


def _refused_pictures(body: Mapping[str, Any], model: FakeModel) -> web.Response | None:
    messages = body.get("messages") or ()
    for picture in (*(body.get("images") or ()), *(one for said in messages for one in said.get("images") or ())):
        try:
            base64.b64decode(picture, validate=True)
        except (binascii.Error, ValueError):
            return error(400, "illegal base64 data at input byte 3")
        if "vision" not in model.capabilities:
            said = "Multimodal data provided, but model does not support multimodal requests."
            inner = {"error": {"code": 400, "message": said, "type": "invalid_request_error"}}
            return error(400, json.dumps(inner))
    return None


def _refused_keep_alive(value: Any) -> web.Response | None:
    if isinstance(value, str) and not value.rstrip("hms").lstrip("-").replace(".", "").isdecimal():
        return error(400, f'time: invalid duration "{value}"')
    return None
