"""Hiding secrets in what is logged."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

__all__ = ["hide_secrets", "redact", "without_secrets"]

_HIDDEN = "(hidden)"
_DEPTH_MAX = 8

# Compared with the letters of a key alone, so that api_key, apiKey and API-KEY are one.
_SECRET_KEY = re.compile(
    r"(apikey|accountkey|accesskey|secretkey|sharedkey|token|password|passwd|secret|authorization|cookie|credentials?"
    r"|connectionstring)$"
)
_NOT_A_LETTER = re.compile(r"[^a-z]")
# Up to the last @ before a slash or a space: a password may hold an @ of its own. Or, where what follows the colon is no port,
# up to the last @ of the word: a password that was not percent-encoded may hold a slash, too.
_IN_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<login>[^\s/?#\"'<>]*|[^\s/?#\"'<>:@\[]*:(?!\d+[/?#])[^\s\"'<>]{0,500})@",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(
    r"(?P<name>\b(?:api[_-]?key|account[_-]?key|access[_-]?key|secret|token|password|sig|signature|x-amz-signature)"
    r"[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s&;,\"'<>)}\]]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<kind>bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that hides secrets, by the names of keys and by what texts look like.

    ``exc_info`` stays what it is: only who makes a text of the traceback can hide what stands in it.
    """
    for key, value in event.items():
        if key != "exc_info":
            event[key] = _hidden(key, value, 0)
    return event


def hide_secrets(text: str) -> str:
    """The text with logins in URLs, keys and tokens hidden."""
    if "://" in text:
        text = _IN_URL.sub(rf"\g<scheme>{_HIDDEN}@", text)
    text = _IN_TEXT.sub(rf"\g<name>{_HIDDEN}", text)
    return _BEARER.sub(rf"\g<kind> {_HIDDEN}", text)


def without_secrets(value: Any) -> Any:
    """A JSON value in which texts under names of secrets (``api_key``, ``token`` …) are hidden, and nothing else."""
    if isinstance(value, Mapping):
        return {
            name: _HIDDEN if isinstance(inner, str) and inner and _is_secret(name) else without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return value


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and _SECRET_KEY.search(_NOT_A_LETTER.sub("", name.lower())) is not None


def _hidden(key: Any, value: Any, depth: int) -> Any:
    if value and _is_secret(key):
        return _HIDDEN
    if isinstance(value, str):
        return hide_secrets(value)
    if depth >= _DEPTH_MAX:
        return value if value is None or isinstance(value, bool | int | float) else _HIDDEN
    if isinstance(value, Mapping):
        return {name: _hidden(name, inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden(None, inner, depth + 1) for inner in value]
    if isinstance(value, BaseException):
        return hide_secrets(f"{type(value).__name__}: {value}")
    return value
