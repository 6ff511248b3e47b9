"""Hiding secrets in what is logged."""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

__all__ = ["hide_secrets", "redact", "without_secrets"]

_HIDDEN = "(hidden)"
_LEVELS_OF_FACTS = 8
"""Less than those of JSON: what is logged may be any object, and hold itself."""
_LEVELS_OF_JSON = 200

# Compared with the letters of a key alone, so that api_key, apiKey and API-KEY are one.
_SECRET_KEY = re.compile(
    r"(apikey|accountkey|accesskey|secretkey|sharedkey|token|password|passwd|secret|authorization|cookie|credentials?"
    r"|connectionstring)$"
)
_NOT_A_LETTER = re.compile(r"[^a-z]")
# Up to the last @ before a slash or a space: a password may hold an @ of its own. Or, where what follows the colon is no port,
# up to the last @ of the word: a password that was not percent-encoded may hold a slash, too.
_IN_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}://)(?P<login>[^\s/?#\"'<>]*|[^\s/?#\"'<>:@\[]*:(?!\d+[/?#])[^\s\"'<>]{0,500})@",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(
    r"(?P<name>(?<![a-z])(?:api[_-]?key|account[_-]?key|access[_-]?key|secret|token|password|sig|signature|x-amz-signature)"
    r"[\"']?\s*[=:]\s*[\"']?)(?P<value>(?!\(hidden\))[^\s&;,\"'<>)}\]]+)",
    re.IGNORECASE,
)
# What follows "basic" is a login only where it does not look like a word.
_BEARER = re.compile(
    r"\b(?P<kind>(?i:bearer)|(?i:basic)(?=\s+[A-Za-z+/]*(?:[0-9=]|[a-z][A-Z])))\s+[A-Za-z0-9._~+/=-]{6,}"
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that hides secrets, by the names of keys and by what texts look like.

    ``exc_info`` stays what it is: only who makes a text of the traceback can hide what stands in it.
    """
    for key, value in event.items():
        if key != "exc_info":
            event[key] = _hidden(key, value, _LEVELS_OF_FACTS)
    return event


def hide_secrets(text: str) -> str:
    """The text with logins in URLs, keys and tokens hidden."""
    if "://" in text:
        text = _IN_URL.sub(rf"\g<scheme>{_HIDDEN}@", text)
    text = _IN_TEXT.sub(rf"\g<name>{_HIDDEN}", text)
    return _BEARER.sub(rf"\g<kind> {_HIDDEN}", text)


def without_secrets(value: Any, *, is_json: bool = True) -> Any:
    """A value as a log would show it: secrets are hidden by the names of keys and by what texts look like.

    Args:
        is_json: whether it is known to hold nothing that JSON cannot; else what stands deep in it is hidden, too.
    """
    return _hidden(None, value, _LEVELS_OF_JSON if is_json else _LEVELS_OF_FACTS)


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and _SECRET_KEY.search(_NOT_A_LETTER.sub("", name.lower())) is not None


def _hidden(key: Any, value: Any, levels: int) -> Any:
    if value and _is_secret(key):
        return _HIDDEN
    if isinstance(value, str):
        return hide_secrets(value)
    if levels <= 0:
        return value if value is None or isinstance(value, bool | int | float) else _HIDDEN
    if isinstance(value, Mapping):
        return {name: _hidden(name, inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden(None, inner, levels - 1) for inner in value]
    if isinstance(value, BaseException):
        return hide_secrets(f"{type(value).__name__}: {value}")
    return value
