"""What errors of OpenAI's API mean, and of servers that speak it: by status, type and code; by text only where nothing else is.

From OpenAI's documentation and specification, and recorded answers of llama.cpp, llama-cpp-python, LiteLLM, Ollama and a
simulator.
"""

import re
from collections.abc import Mapping
from typing import Any

from emp_core.connectors.http_errors import error_of_status, retry_after_s
from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectorError,
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
from emp_openai.error_body import ErrorBody
from emp_openai.limits import reset_s

__all__ = ["error_of_answer", "error_of_event", "request_id_of", "wait_s"]

_WRONG_JOB = re.compile(r"parse error|not supported|not support |must be created with embedding", re.IGNORECASE)
_WRONG_INPUT = re.compile(r"invalid_|image_|unsupported_image|empty_image|failed_to_download_image|data_residency")
_REQUEST_IDS = ("x-request-id", "x-generation-id", "x-litellm-call-id", "apim-request-id")


def wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait, in seconds: ``retry-after-ms``, else ``Retry-After``."""
    told = headers.get("retry-after-ms", "").strip()
    if told.isdecimal():
        return int(told) / 1000
    return retry_after_s(headers)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """What the server calls the request; None: it does not say."""
    return next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)


def error_of_answer(status: int, headers: Mapping[str, str], text: str, *, endpoint: str, doing: str) -> EmpError:
    """The error for an answer whose status is no success."""
    body = ErrorBody.read(text)
    facts = {
        "endpoint": endpoint,
        "request": doing,
        "status": status,
        "type": body.type,
        "code": body.code,
        "request_id": request_id_of(headers),
    }
    details = {name: value for name, value in facts.items() if value}
    message = f"{endpoint} answered {doing} with {status}" + (f": {body.message}" if body.message else "")
    if told := _told_by_body(body, message, details):
        return told
    told = _told_by_status(status, headers, body, message, details)
    if told is not None:
        return _as_the_server_wants(told, headers)
    error = error_of_status(status, headers, body.message, endpoint=endpoint, doing=doing)
    error.details.update(details)
    return _as_the_server_wants(error, headers)


def _told_by_body(body: ErrorBody, message: str, details: dict[str, Any]) -> ConnectorError | None:
    if body.is_money:
        return QuotaExhausted(message, hint="the account needs money, or a higher limit", details=details)
    if body.is_content:
        return ContentRefused(message, details=details)
    if body.is_context:
        return InvalidJob(message, hint="shorten the input", details={**details, "reason": "context_exceeded"})
    return None


def _told_by_status(
    status: int, headers: Mapping[str, str], body: ErrorBody, message: str, details: dict[str, Any]
) -> ConnectorError | None:
    match status:
        case 400 | 403 | 404 if body.is_missing_model:
            return MissingModel(message, hint="may this account use the model?", details=details)
        case 400 if body.type == "no_db_connection":
            # LiteLLM looks for keys that it does not know in its database.
            return AuthenticationFailed(message, hint="check the key", details=details)
        case 401 | 403:
            return AuthenticationFailed(message, hint="check the key, and what it may do", details=details)
        case 429:
            told = wait_s(headers)
            return RateLimited(message, retry_after_s=reset_s(headers) if told is None else told, details=details)
        case 409 | 425:
            return ServiceBusy(message, retry_after_s=wait_s(headers), details=details)
        case 500 if _WRONG_JOB.search(body.message):
            # Servers of one's own blame themselves for wrong requests.
            return InvalidJob(message, details=details)
        case 500:
            return JobFailed(message, details={**details, "reason": "server_error"})
        case 501:
            return InvalidJob(message, details={**details, "reason": "not_supported"})
        case 503 if wait_s(headers) is not None or body.code == "server_is_overloaded":
            return ServiceBusy(message, retry_after_s=wait_s(headers), details=details)
    return None


def _as_the_server_wants(error: EmpError, headers: Mapping[str, str]) -> EmpError:
    """``x-should-retry`` goes before what the status says."""
    wanted = headers.get("x-should-retry", "").strip().lower()
    if wanted == "false" and isinstance(error, JobFailed | ServiceBusy | ServiceUnavailable):
        return InvalidJob(error.message, details={**error.details, "reason": "not_to_be_retried"})
    if wanted == "true" and isinstance(error, InvalidJob):
        return JobFailed(error.message, details={**error.details, "reason": "to_be_retried"})
    return error


def error_of_event(told: Any, *, endpoint: str, doing: str) -> ConnectorError:
    """The error for one that came in the middle of an answer, or as what became of a response."""
    body = ErrorBody.of(told)
    facts = {"endpoint": endpoint, "request": doing, "status": 200, "type": body.type, "code": body.code}
    details = {name: value for name, value in facts.items() if value}
    message = f"{endpoint} broke off its answer to {doing}: {body.message or 'it says no reason'}"
    if error := _told_by_body(body, message, details):
        return error
    match body.code:
        case "rate_limit_exceeded" | "slow_down" | "429":
            return RateLimited(message, details=details)
        case "server_is_overloaded" | "502" | "503":
            return ServiceUnavailable(message, details=details)
        case code if _WRONG_INPUT.match(code):
            return InvalidJob(message, details=details)
    if body.type == "invalid_request_error":
        return InvalidJob(message, details=details)
    lower = body.message.lower()
    if "connection" in lower or "eof" in lower:
        return ConnectionLost(message, details=details)
    return JobFailed(message, details={**details, "reason": "server_error"})
