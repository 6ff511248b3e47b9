"""Video files made by hand: JPEG pictures in an MP4 or a WebM container.

A real server encodes H.264 or VP9; a reader that looks at the container, the size and the duration sees no difference.
MP4: ISO/IEC 14496-12. WebM: a Matroska segment, RFC 9559.
"""

import struct
from collections.abc import Sequence

from emp_comfyui.testing import jpeg
from emp_comfyui.testing.pictures import Picture

_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(frames: Sequence[Picture], fps: float) -> bytes:
    """An MP4 file of the pictures."""
    samples = [jpeg.encode(frame) for frame in frames]
    scale, each = 1000, round(1000 / fps)
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isommp41")
    data = _box(b"mdat", b"".join(samples))
    return head + data + _movie(frames[0], [len(sample) for sample in samples], len(head) + 8, scale, each)


def webm(frames: Sequence[Picture], fps: float) -> bytes:
    """A WebM file of the pictures."""
    head = _element(0x1A45DFA3, _element(0x4282, b"webm") + _number(0x4287, 4) + _number(0x4285, 2))
    duration = struct.pack(">d", 1000 * len(frames) / fps)
    info = _element(0x1549A966, _number(0x2AD7B1, 1_000_000) + _element(0x4489, duration))
    picture = _element(0xE0, _number(0xB0, frames[0].width) + _number(0xBA, frames[0].height))
    entry = _number(0xD7, 1) + _number(0x73C5, 1) + _number(0x83, 1) + _element(0x86, b"V_MJPEG") + picture
    blocks = b"".join(
        _element(0xA3, b"\x81" + struct.pack(">hB", round(1000 * place / fps), 0x80) + jpeg.encode(frame))
        for place, frame in enumerate(frames)
    )
    cluster = _element(0x1F43B675, _number(0xE7, 0) + blocks)
    return head + _element(0x18538067, info + _element(0x1654AE6B, _element(0xAE, entry)) + cluster)


def _movie(first: Picture, sizes: list[int], offset: int, scale: int, each: int) -> bytes:
    duration = each * len(sizes)
    header = _full(
        b"mvhd", struct.pack(">IIIIIH10x", 0, 0, scale, duration, 0x10000, 0x100) + _MATRIX + bytes(24) + b"\0\0\0\2"
    )
    side = struct.pack(">II", first.width << 16, first.height << 16)
    track = _full(b"tkhd", struct.pack(">IIIII8xhhHH", 0, 0, 1, 0, duration, 0, 0, 0, 0) + _MATRIX + side, flags=3)
    media = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, scale, duration, 0x55C4, 0))
    handler = _full(b"hdlr", bytes(4) + b"vide" + bytes(12) + b"video\0")
    minf = _box(
        b"minf", _full(b"vmhd", bytes(8), flags=1) + _data_reference() + _sample_table(first, sizes, offset, each)
    )
    return _box(b"moov", header + _box(b"trak", track + _box(b"mdia", media + handler + minf)))


def _data_reference() -> bytes:
    return _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))


def _sample_table(first: Picture, sizes: list[int], offset: int, each: int) -> bytes:
    count = len(sizes)
    shown = struct.pack(">HHIIIH", first.width, first.height, 0x480000, 0x480000, 0, 1)
    entry = _box(b"jpeg", bytes(6) + struct.pack(">H", 1) + bytes(16) + shown + bytes(32) + struct.pack(">Hh", 24, -1))
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1) + entry)
        + _full(b"stts", struct.pack(">III", 1, count, each))
        + _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1))
        + _full(b"stsz", struct.pack(f">II{count}I", 0, count, *sizes))
        + _full(b"stco", struct.pack(">II", 1, offset)),
    )


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def _full(kind: bytes, body: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags) + body)


def _element(identity: int, body: bytes) -> bytes:
    name = identity.to_bytes((identity.bit_length() + 7) // 8, "big")
    return name + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _number(identity: int, value: int) -> bytes:
    return _element(identity, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
