"""What Ollama's errors mean. Its status codes do not tell whose fault it was: the text is part of the protocol.

The table was made from answers of Ollama 0.33: a wrong option is 500, a model that does not embed 501, a model that is not there
404, and once an answer has begun every error is a line in it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from emp_core.connectors.http_errors import error_of_status, retry_after_s, shown
from emp_core.errors import (
    ConnectionLost,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    OutOfMemory,
    ServiceBusy,
)

__all__ = ["error_of_answer", "error_of_line", "missing", "said_by"]

_WRONG_JOB = (
    "does not support",
    "must be of type",
    "invalid",
    "illegal base64",
    "exceeds the context length",
    "model is required",
    "cannot unmarshal",
)
_MODEL = re.compile(r"""model ['"]([^'"]+)['"] not found""")
_RUNNER_DIED = ("unexpected eof", "has unexpectedly stopped", "runner process", "connection reset", "broken pipe")
_NOT_LOADED = ("error loading model", "unable to load model", "failed to load model")
_MEMORY = ("out of memory", "requires more system memory", "requires more memory", "cudamalloc", "insufficient memory")


def said_by(body: str) -> str:
    """What an error's body says: Ollama puts a text into ``error``, which may be JSON with a ``message`` of its own."""
    said: Any = body
    for _ in range(4):  # an error within an error's text
        if isinstance(said, str):
            try:
                inner = json.loads(said)
            except (ValueError, RecursionError):
                break
            if not isinstance(inner, Mapping):
                break
            said = inner
        if not isinstance(said, Mapping):
            break
        said = said.get("error", said.get("message", said.get("detail", said)))
        if isinstance(said, Mapping) and "message" in said:
            said = said["message"]
    return shown(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str))


def error_of_answer(status: int, headers: Mapping[str, str], body: str, *, endpoint: str, doing: str) -> EmpError:
    """The error for an answer whose status is no success.

    Args:
        endpoint: the server's address, without credentials.
    """
    said = said_by(body)
    details = {"endpoint": endpoint, "request": doing, "status": status}
    message = (
        f"{endpoint} answered {doing} with {status}: {said}" if said else f"{endpoint} answered {doing} with {status}"
    )
    if status == 404 and (found := _MODEL.search(said)):
        return missing(found[1], endpoint=endpoint)
    if status == 503:
        return ServiceBusy(message, retry_after_s=retry_after_s(headers), details=details)
    if status in (400, 500, 501) and said:
        return _error_of_text(said, message, details, status)
    return error_of_status(status, headers, said, endpoint=endpoint, doing=doing)


def error_of_line(said: Any, *, endpoint: str, doing: str) -> EmpError:
    """The error for a line ``{"error": …}`` of an answer that had begun."""
    text = said_by(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str))
    details = {"endpoint": endpoint, "request": doing, "status": 200}
    return _error_of_text(text, f"{endpoint} broke off its answer to {doing}: {text}", details, 200)


def missing(model: str, *, endpoint: str) -> MissingModel:
    """The error for a model that a server does not have."""
    return MissingModel(
        f"{endpoint} does not have the model {model}",
        hint=f"`ollama pull {model}` there, or let workers do it with EMP_OLLAMA_PULL=true",
        details={"model": model, "endpoint": endpoint},
    )


def _error_of_text(said: str, message: str, details: dict[str, Any], status: int) -> EmpError:
    lower = said.lower()
    if any(word in lower for word in _MEMORY):
        return OutOfMemory(message, details=details)
    if any(word in lower for word in _RUNNER_DIED) and not any(word in lower for word in _NOT_LOADED):
        return ConnectionLost(
            message, hint="the model's process ended; the next request starts a new one", details=details
        )
    if "exceed" in lower and "context" in lower:
        return InvalidJob(
            message,
            hint="shorten the prompt, or use workers whose EMP_OLLAMA_OPTIONS has a larger num_ctx",
            details=details,
        )
    if status in (400, 501) or any(word in lower for word in _WRONG_JOB):
        return InvalidJob(message, details=details)
    # A model that cannot be loaded, and everything else that 500 stands for: another server may do better, and this one's
    # other models may be well.
    return JobFailed(message, details={**details, "reason": "server_error"})
