"""Rate limits, as the headers of every answer tell them: who heeds them meets no 429."""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Allowance", "duration_s", "reset_s"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNTOLD_S = 1.0
"""How long to rest where nobody says how long."""
_MOST_S = 600.0
_LATELY_S = 600.0


def duration_s(text: str) -> float | None:
    """A duration such as ``1s``, ``6m0s`` or ``20ms``, in seconds; None: it is none."""
    text = text.strip()
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        try:
            seconds = float(text)
        except ValueError:
            return None
        return max(0.0, seconds) if math.isfinite(seconds) else None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def reset_s(headers: Mapping[str, str]) -> float | None:
    """When the limit that is met resets, in seconds from now; None: none is, as far as the headers tell."""
    for what in ("requests", "tokens"):
        if _count(headers.get(f"x-ratelimit-remaining-{what}")) == 0:
            return duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
    return None


class Allowance:
    """What may still be sent somewhere before its rate limit is met: what its last answer told, less what is on its way.

    Gateways that say nothing, or -1, limit nothing. Tokens count when none are left: what a request will take is not known.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unanswered = 0
        self._left = math.inf
        self._limit = math.inf
        self._resets_at = 0.0
        self._used_at = -math.inf

    @property
    def is_used(self) -> bool:
        """Whether anything was sent lately."""
        return self._clock() - self._used_at < _LATELY_S

    @property
    def wait_s(self) -> float:
        """For how long nothing may be sent."""
        now = self._clock()
        if now >= self._resets_at:
            self._left = self._limit
        if self._left > self._unanswered:
            return 0.0
        return self._resets_at - now if now < self._resets_at else _UNTOLD_S

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request is on its way, until its answer begins."""
        self._unanswered += 1
        self._used_at = self._clock()
        try:
            yield
        finally:
            self._unanswered -= 1

    def rest(self, seconds: float) -> None:
        """Nothing may be sent for so long: the limit was met."""
        self._left = 0
        self._resets_at = max(self._resets_at, self._clock() + seconds)

    def heed(self, headers: Mapping[str, str]) -> None:
        """Take note of what an answer tells."""
        left = _count(headers.get("x-ratelimit-remaining-requests"))
        if left is not None:
            limit = _count(headers.get("x-ratelimit-limit-requests"))
            self._left, self._limit = left, limit or math.inf
            self._resets_at = self._after(headers.get("x-ratelimit-reset-requests"))
        if _count(headers.get("x-ratelimit-remaining-tokens")) == 0:
            tokens_at = self._after(headers.get("x-ratelimit-reset-tokens"))
            self._resets_at = max(tokens_at, self._resets_at if self._left <= 0 else tokens_at)
            self._left = 0

    def _after(self, told: str | None) -> float:
        seconds = duration_s(told or "")
        return self._clock() + min(_UNTOLD_S if seconds is None else seconds, _MOST_S)


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None
