"""What errors of OpenAI's API, and of servers that speak it, mean: by status, type and code; by text only where there is nothing else.

From OpenAI's documentation and recorded answers of llama.cpp, llama-cpp-python, LiteLLM, Ollama and a simulator.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from emp_core.connectors.http_errors import error_of_status, retry_after_s, shown
from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ContentRefused,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)

__all__ = ["ErrorBody", "error_of_answer", "error_of_event", "wait_s"]

_MONEY = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active")
_CONTENT = ("content_policy_violation", "content_filter", "moderation_blocked")
_NO_MODEL = re.compile(r"model.{0,80}(not found|does not exist|invalid model name)|invalid model name", re.IGNORECASE)
_WRONG_JOB = re.compile(
    r"parse error|is not supported|not support|must be created with embedding|expected|required|unrecognized|invalid",
    re.IGNORECASE,
)


@frozen
class ErrorBody:
    """What an error's body says, whatever its shape: ``{error: {…}}``, ``{error: text}``, ``{detail: …}``, or plain text."""

    message: str
    type: str = ""
    code: str = ""

    @classmethod
    def read(cls, text: str) -> "ErrorBody":
        """Read a body."""
        try:
            told: Any = json.loads(text)
        except (ValueError, RecursionError):
            return cls(shown(text))
        return cls.of(told)

    @classmethod
    def of(cls, told: Any) -> "ErrorBody":
        """Read parsed JSON."""
        error = told.get("error", told.get("detail", told)) if isinstance(told, Mapping) else told
        if isinstance(error, Mapping):
            message = error.get("message")
            return cls(
                shown(message if isinstance(message, str) else json.dumps(error, default=str)),
                str(error.get("type") or ""),
                str(error.get("code") or ""),
            )
        return cls(shown(error if isinstance(error, str) else json.dumps(error, default=str)))

    @property
    def is_money(self) -> bool:
        """Whether the account has no money or quota left."""
        spent = self.code.endswith("_limit_exceeded") and not self.code.startswith("rate")
        return self.type in _MONEY or self.code in _MONEY or spent

    @property
    def is_content(self) -> bool:
        """Whether it is the content that is refused."""
        return self.code in _CONTENT or self.type in _CONTENT or self.type == "image_generation_user_error"

    @property
    def is_context(self) -> bool:
        """Whether the input is too long for the model."""
        lower = self.message.lower()
        return (
            self.code == "context_length_exceeded"
            or self.type == "exceed_context_size_error"
            or ("context" in lower and ("exceed" in lower or "too long" in lower or "maximum" in lower))
        )


def wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait, in seconds: ``retry-after-ms``, else ``Retry-After``."""
    try:
        return max(0.0, float(headers.get("retry-after-ms", "")) / 1000)
    except ValueError:
        return retry_after_s(headers)


def error_of_answer(status: int, headers: Mapping[str, str], text: str, *, endpoint: str, doing: str) -> EmpError:
    """The error for an answer whose status is no success."""
    body = ErrorBody.read(text)
    details: dict[str, Any] = {"endpoint": endpoint, "request": doing, "status": status}
    for name, value in (("type", body.type), ("code", body.code), ("request_id", headers.get("x-request-id"))):
        if value:
            details[name] = value
    message = f"{endpoint} answered {doing} with {status}" + (f": {body.message}" if body.message else "")
    again = headers.get("x-should-retry", "").lower()
    if told := _told_by_body(body, message, details):
        return told
    match status:
        case 401:
            return AuthenticationFailed(message, hint="check the key", details=details)
        case 403 if body.code == "model_not_found" or _NO_MODEL.search(body.message):
            return MissingModel(message, hint="may this account use the model?", details=details)
        case 403:
            return AuthenticationFailed(message, hint="check what the key may do", details=details)
        case 429:
            return RateLimited(message, retry_after_s=wait_s(headers), details=details)
        case 400 | 404 if _NO_MODEL.search(body.message) or body.code == "model_not_found":
            return MissingModel(message, details=details)
        case 409 | 425:
            return ServiceBusy(message, retry_after_s=wait_s(headers), details=details)
        case 501:
            return InvalidJob(message, details=details)
        case 503 if wait_s(headers) is not None or body.code == "server_is_overloaded":
            return ServiceBusy(message, retry_after_s=wait_s(headers), details=details)
        case 500 if _WRONG_JOB.search(body.message) and again != "true":
            # Servers of one's own blame themselves for wrong requests.
            return InvalidJob(message, details=details)
        case 500:
            return JobFailed(message, details={**details, "reason": "server_error"})
    if again == "false" and status >= 500:
        return InvalidJob(message, details=details)
    return error_of_status(status, headers, body.message, endpoint=endpoint, doing=doing)


def error_of_event(told: Any, *, endpoint: str, doing: str) -> EmpError:
    """The error for one that came in the middle of an answer."""
    body = ErrorBody.of(told)
    details: dict[str, Any] = {"endpoint": endpoint, "request": doing, "status": 200}
    if body.code:
        details["code"] = body.code
    message = f"{endpoint} broke off its answer to {doing}: {body.message or 'it says no reason'}"
    if error := _told_by_body(body, message, details):
        return error
    if body.code in ("rate_limit_exceeded", "429", "slow_down"):
        return RateLimited(message, details=details)
    if body.code in ("server_is_overloaded", "503"):
        return ServiceUnavailable(message, details=details)
    if "connection" in body.message.lower() or "eof" in body.message.lower():
        return ConnectionLost(message, details=details)
    if body.type == "invalid_request_error" or body.code == "invalid_prompt":
        return InvalidJob(message, details=details)
    return JobFailed(message, details={**details, "reason": "server_error"})


def _told_by_body(body: ErrorBody, message: str, details: dict[str, Any]) -> EmpError | None:
    if body.is_money:
        return QuotaExhausted(message, hint="the account needs money, or a higher limit", details=details)
    if body.is_content:
        return ContentRefused(message, details=details)
    if body.is_context:
        return InvalidJob(message, hint="shorten the input", details={**details, "reason": "context_exceeded"})
    return None
