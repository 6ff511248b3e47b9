"""Job ids: ULIDs, which sort by the time they were made."""

import os
import re
import threading
import time

__all__ = ["is_job_id", "is_service_name", "new_job_id"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_SHIFTS = range(120, -1, -10)
"""Of the 13 pairs of digits in an id."""

_lock = threading.Lock()
_last = 0


def new_job_id() -> str:
    """A new ULID: 26 characters, greater than every one that this process made before.

    Source: https://github.com/ulid/spec (48 bits of milliseconds, 80 bits of randomness, Crockford's base 32,
    the random part counted up within a millisecond).
    """
    global _last  # noqa: PLW0603 - "greater than the last one" is state of the process
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last >> 80:
            # The random part's top bit stays clear, so that counting up within the millisecond cannot overflow.
            _last = now_ms << 80 | int.from_bytes(os.urandom(10), "big") >> 1
        else:
            _last += 1
        made = _last
    return "".join([_PAIRS[made >> shift & 1023] for shift in _SHIFTS])


def _forget_the_last() -> None:
    """A child that went on counting from its parent's number would make its parent's ids."""
    global _lock, _last
    _lock, _last = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_last)


def is_job_id(text: str) -> bool:
    """Whether ``text`` may be a job's id: a plain name that is not the last part of one of the queue's own keys."""
    return _is_plain_name(text) and text not in _RESERVED


def is_service_name(text: str) -> bool:
    """Whether ``text`` may be the name of a service: a plain name."""
    return _is_plain_name(text)


def _is_plain_name(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None


_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
"""1 to 64 letters, digits, ``-``, ``_`` or ``.``, not beginning with a dot."""
_RESERVED = frozenset({"pending", "scheduled", "deadlines", "active", "completed", "failed", "cancelled"})
