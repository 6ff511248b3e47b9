"""What tells a repeated submit from a different one: a digest of what was said, in whatever order it was said."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["digest_of"]

_OBJECTS = ("labels", "ctx")


def digest_of(pairs: Sequence[str], payload: str) -> str:
    """The digest of a job's body. Where it is not that of the very order in which all was said, that one follows after a space:
    jobs that came when order made a difference have it.

    Args:
        pairs: names and values in turn, as they stand in the job's hash.
        payload: as JSON.
    """
    said = dict(zip(pairs[::2], pairs[1::2], strict=True))
    said.pop("traceparent", None)  # another try of the same call may belong to another trace
    in_order = {name: _in_order(text) if name in _OBJECTS else text for name, text in said.items()}
    if "requirement" in said:
        # A worker that compares numbers takes 1 for 1.0; a service may not.
        in_order["requirement"] = _in_order(said["requirement"], parse_float=_whole)
        del in_order["lane"]  # which is made of that
    first, second = _hashed(in_order, _in_order(payload)), _hashed(said, payload)
    return first if first == second else f"{first} {second}"


def _in_order(text: str, **reading: Any) -> str:
    return json.dumps(json.loads(text, **reading), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _whole(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _hashed(said: Mapping[str, str], payload: str) -> str:
    texts = [text for pair in said.items() for text in pair]
    return hashlib.sha256("\0".join((*texts, payload)).encode()).hexdigest()[:24]
