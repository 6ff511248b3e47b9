"""The size of a picture from its first bytes, for the kinds that are not decoded here: JPEG, GIF, WebP, BMP, odd PNGs."""

import struct

from emp_comfyui.testing import png

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def measure(data: bytes) -> tuple[int, int] | None:
    """Width and height, or None if the bytes are no picture."""
    try:
        return _measure(data)
    except (struct.error, IndexError):
        return None


def _measure(data: bytes) -> tuple[int, int] | None:
    if data.startswith(png.SIGNATURE):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return width, abs(height)
    if data.startswith(b"\xff\xd8"):
        return _measure_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _measure_webp(data)
    return None


def _measure_jpeg(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position < len(data):
        _, marker, length = struct.unpack_from(">BBH", data, position)
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + length
    return None


def _measure_webp(data: bytes) -> tuple[int, int] | None:
    if data[12:16] == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
