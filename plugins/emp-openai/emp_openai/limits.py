"""Rate limits, as the headers of every answer tell them: who heeds them meets no 429."""

import re
from collections.abc import Mapping

__all__ = ["duration_s", "rest_s"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_S = 600.0


def duration_s(text: str) -> float | None:
    """A duration such as ``1s``, ``6m0s`` or ``20ms``, in seconds; None: it is none."""
    text = text.strip()
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        try:
            return max(0.0, float(text))
        except ValueError:
            return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def rest_s(headers: Mapping[str, str]) -> float:
    """How long to send nothing: 0 while requests and tokens are left; gateways that say nothing, or -1, limit nothing."""
    longest = 0.0
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() != "0":
            continue
        reset = duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        longest = max(longest, 1.0 if reset is None else reset)
    return min(longest, _MOST_S)
