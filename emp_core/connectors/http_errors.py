"""From what went wrong in HTTP to the error types that decide what becomes of a job."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from emp_core.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    EmpError,
    InvalidJob,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)

__all__ = ["error_of_exception", "error_of_status", "retry_after_s", "shown"]

_RETRY_AFTER_MAX_S = 86_400.0
_SHOWN_CHARS = 300


def error_of_exception(error: httpx.HTTPError | httpx.InvalidURL, *, endpoint: str, doing: str) -> EmpError:
    """The error for a request that got no whole answer.

    Nothing was sent yet: ServiceUnavailable. The service may have begun: ConnectionLost, its subclass.

    Args:
        endpoint: the service's address, without credentials.
        doing: the request in short (``GET /queue``).
    """
    name = type(error).__name__
    details = {"endpoint": endpoint, "request": doing, "cause": name}
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return ConfigError(f"{endpoint} is no address of an HTTP service: {error}", details=details)
        case httpx.ConnectTimeout():
            return ServiceUnavailable(
                f"{endpoint} did not take the connection in time", hint="is the host up and reachable?", details=details
            )
        case httpx.ConnectError():
            return ServiceUnavailable(
                f"nothing answers at {endpoint}: {error}", hint="is the service running?", details=details
            )
        case httpx.PoolTimeout():
            return ServiceUnavailable(f"no connection to {endpoint} became free in time", details=details)
        case httpx.ReadTimeout() | httpx.WriteTimeout():
            return ConnectionLost(f"{endpoint} went silent during {doing}", details=details)
        case httpx.DecodingError() | httpx.TooManyRedirects():
            return ServiceUnavailable(f"{endpoint} gave an answer to {doing} that cannot be read", details=details)
    return ConnectionLost(f"the connection to {endpoint} broke during {doing}: {str(error) or name}", details=details)


def error_of_status(status: int, headers: Mapping[str, str], text: str, *, endpoint: str, doing: str) -> EmpError:
    """The error for an answer whose status is no success.

    Args:
        text: the answer's body, as far as it was read.
    """
    said = shown(text)
    message = f"{endpoint} answered {doing} with {status}" + (f": {said}" if said else "")
    details = {"endpoint": endpoint, "request": doing, "status": status}
    match status:
        case 401 | 403 | 407:
            return AuthenticationFailed(message, hint="check the service's credentials", details=details)
        case 402:
            return QuotaExhausted(message, details=details)
        case 408:
            return ConnectionLost(message, details=details)
        case 425 | 429:
            return RateLimited(message, retry_after_s=retry_after_s(headers), details=details)
        case 503 if (told := retry_after_s(headers)) is not None:
            return ServiceBusy(message, retry_after_s=told, details=details)
        case 529:
            return ServiceBusy(message, retry_after_s=retry_after_s(headers), details=details)
        case _ if 400 <= status < 500:
            return InvalidJob(message, details=details)
    return ServiceUnavailable(message, details=details)


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """What ``Retry-After`` says, in seconds from now (RFC 9110, 10.2.3); None when it says nothing usable."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MAX_S)


def shown(text: str, limit: int = _SHOWN_CHARS) -> str:
    """A service's words in one printable line, cut to ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
