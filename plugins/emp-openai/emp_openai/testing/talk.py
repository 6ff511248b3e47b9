"""What the fake server says: the last word of what it is told picks it."""

import base64
import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["PICTURE", "told_by", "words_of"]

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def words_of(told: str) -> Iterator[str]:
    """The pieces of an answer."""
    match told.split()[-1] if told.split() else "":
        case "count" | "long" as word:
            yield from (f" {name}" for name in _NUMBERS * (20 if word == "long" else 1))
        case "forever":
            yield from itertools.cycle((" tick", " tock"))
        case "json":
            yield from ('{"answer":', " 42}")
        case "nothing" | "fail":
            return
        case _:
            yield from ("Hello", " from", " the", f" fake: {told}")


def told_by(body: Mapping[str, Any]) -> str:
    """The text that picks the answer: the last message's, the input, or the prompt."""
    last = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(last, list):
        last = last[-1] if last else ""
        last = last.get("content", "") if isinstance(last, Mapping) else last
    if isinstance(last, list):
        last = " ".join(str(part.get("text", "")) for part in last if isinstance(part, Mapping))
    return str(last or "")


def picture(shade: int) -> str:
    """A small picture of one colour, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes((shade % 256, 100, 150)) * 8
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(row * 8)),
        chunk(b"IEND", b""),
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


PICTURE = picture(0)
