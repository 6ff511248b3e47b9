"""WebP files made by hand: lossless, one flat colour, still or animated. Enough for a client that looks at kind and size.

The format is RFC 9649. A picture of one colour needs no pixel data: each of its five prefix codes has a single symbol.
"""

import struct
from collections.abc import Sequence

from emp_comfyui.testing.pictures import Picture


def encode(picture: Picture) -> bytes:
    """A WebP file of the picture's size in its average colour."""
    return _riff(_chunk(b"VP8L", _flat(picture)))


def encode_animation(frames: Sequence[Picture], fps: float) -> bytes:
    """An animated WebP that repeats for ever, each frame in its average colour."""
    width, height = _minus_one(frames[0].width), _minus_one(frames[0].height)
    duration = round(1000 / fps).to_bytes(3, "little")
    parts = [_chunk(b"VP8X", b"\x02\0\0\0" + width + height), _chunk(b"ANIM", b"\0\0\0\0" + b"\0\0")]
    for frame in frames:
        place = b"\0\0\0" * 2 + _minus_one(frame.width) + _minus_one(frame.height) + duration + b"\x02"
        parts.append(_chunk(b"ANMF", place + _chunk(b"VP8L", _flat(frame))))
    return _riff(b"".join(parts))


def _flat(picture: Picture) -> bytes:
    bits = _Bits()
    bits.put(picture.width - 1, 14)
    bits.put(picture.height - 1, 14)
    bits.put(0, 1)  # no alpha
    bits.put(0, 3)  # version
    bits.put(0, 3)  # no transform, no colour cache, no meta prefix codes
    red, green, blue = picture.mean_colour()
    for symbol in (green, red, blue, 255, 0):
        bits.put(1, 1)  # a simple code ...
        bits.put(0, 1)  # ... of one symbol ...
        bits.put(1, 1)  # ... which is given with 8 bits
        bits.put(symbol, 8)
    return b"\x2f" + bits.packed()


class _Bits:
    """Bits from the lowest up."""

    def __init__(self) -> None:
        self._value = 0
        self._count = 0

    def put(self, value: int, count: int) -> None:
        self._value |= value << self._count
        self._count += count

    def packed(self) -> bytes:
        return self._value.to_bytes((self._count + 7) // 8, "little")


def _minus_one(side: int) -> bytes:
    return (side - 1).to_bytes(3, "little")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
