"""JPEG files made by hand: baseline, one flat colour per block of 8 x 8 pixels.

Enough for previews: any JPEG reader takes them, and they show what the picture looks like. Only the first coefficient of
each block is written, so no cosine transform is needed. The format is ITU T.81.
"""

import math
import struct

from emp_comfyui.testing.pictures import Picture, scaled

_DC_COUNTS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
_AC_COUNTS = (1, *([0] * 15))
_QUANTUM = 8


def encode(picture: Picture) -> bytes:
    """A JPEG file of the picture's size, coarse."""
    columns, rows = math.ceil(picture.width / 8), math.ceil(picture.height / 8)
    blocks = scaled(picture, columns, rows)
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    frame = struct.pack(">BHHB", 8, picture.height, picture.width, 3) + components
    scan = b"\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            _segment(0xDB, b"\0" + bytes([_QUANTUM]) * 64),
            _segment(0xC0, frame),
            _segment(0xC4, b"\x00" + bytes(_DC_COUNTS) + bytes(range(12)) + b"\x10" + bytes(_AC_COUNTS) + b"\0"),
            _segment(0xDA, scan),
            _entropy_coded(blocks),
            b"\xff\xd9",
        )
    )


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _entropy_coded(blocks: Picture) -> bytes:
    codes = _codes(_DC_COUNTS)
    previous = [0, 0, 0]
    bits: list[str] = []
    for start in range(0, len(blocks.rgb), 3):
        for channel, level in enumerate(_ycc(*blocks.rgb[start : start + 3])):
            # A block of one level v has the first coefficient 8 (v - 128), divided by the quantum.
            coefficient = round(8 * (level - 128) / _QUANTUM)
            difference, previous[channel] = coefficient - previous[channel], coefficient
            length = abs(difference).bit_length()
            bits.append(codes[length])
            if length:
                bits.append(format(difference if difference > 0 else difference + (1 << length) - 1, f"0{length}b"))
            bits.append("0")  # end of block: the only code of the AC table
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    return int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\0")


def _codes(counts: tuple[int, ...]) -> list[str]:
    codes = []
    code = 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            codes.append(format(code, f"0{length}b"))
            code += 1
        code <<= 1
    return codes


def _ycc(red: int, green: int, blue: int) -> tuple[float, float, float]:
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma)
