"""What the fake server refuses, as the hosted API does: status, error and headers."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

__all__ = ["ERRORS", "error", "refused"]

_LIMITS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
ERRORS: Mapping[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "ratelimit": (
        429,
        {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"},
        {"Retry-After": "2", **_LIMITS},
    ),
    "quota": (
        429,
        {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"},
        {"Retry-After": "1", **_LIMITS},
    ),
    "unpaid": (402, {"message": "Insufficient credits", "code": 402}, {}),
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
"""Answers to what ends with these words."""


def refused(word: str, headers: Mapping[str, str]) -> web.Response | None:
    """The refusal that a word picks; None: it picks none.

    Args:
        headers: of every answer.
    """
    if word not in ERRORS:
        return None
    status, told, own = ERRORS[word]
    return error(status, told, {**headers, **own})


def error(status: int, told: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """An error's answer."""
    return web.json_response({"error": {"param": None, **told}}, status=status, headers=headers)
