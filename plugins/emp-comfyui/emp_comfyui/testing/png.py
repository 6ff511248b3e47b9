"""PNG files written and read by hand, so that the fake server needs no imaging library.

Written: 8 bit RGB, RGBA and greyscale, text chunks, animations (APNG). Read: every 8 bit PNG that is not interlaced.
The format is described in the PNG specification, https://www.w3.org/TR/png-3/.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

import attrs

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 64_000_000
"""A picture with more pixels than this is refused before anything is unpacked."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


class NotAPng(ValueError):
    """The bytes are no PNG that this module can read; the message says why."""


@attrs.frozen
class Raster:
    """Unpacked pixels: ``data`` holds ``width * height * channels`` bytes, row after row."""

    width: int
    height: int
    channels: int
    data: bytes


def encode(raster: Raster, text: Mapping[str, str] | None = None, level: int = 4) -> bytes:
    """A PNG file of one picture, with ``text`` as ``tEXt`` chunks (Latin-1; what does not fit is escaped as JSON does)."""
    return b"".join(
        (
            SIGNATURE,
            _header(raster),
            *(_text_chunk(key, value) for key, value in (text or {}).items()),
            _chunk(b"IDAT", zlib.compress(_filtered(raster), level)),
            _chunk(b"IEND", b""),
        )
    )


def encode_animation(frames: Sequence[Raster], fps: float, text: Mapping[str, str] | None = None) -> bytes:
    """An animated PNG that repeats for ever. All frames must have the size of the first one.

    Texts go into ``comf`` chunks behind the first frame, where SaveAnimatedPNG puts them.
    """
    delay_ms = round(1000 / fps)
    parts = [SIGNATURE, _header(frames[0]), _chunk(b"acTL", struct.pack(">II", len(frames), 0))]
    sequence = 0
    for number, frame in enumerate(frames):
        control = struct.pack(">IIIIIHHBB", sequence, frame.width, frame.height, 0, 0, delay_ms, 1000, 0, 0)
        parts.append(_chunk(b"fcTL", control))
        sequence += 1
        packed = zlib.compress(_filtered(frame), 4)
        if number == 0:
            parts.append(_chunk(b"IDAT", packed))
            parts.extend(_chunk(b"comf", f"{key}\0{value}".encode()) for key, value in (text or {}).items())
        else:
            parts.append(_chunk(b"fdAT", struct.pack(">I", sequence) + packed))
            sequence += 1
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def decode(data: bytes) -> Raster:
    """Unpack a PNG to RGB or RGBA (greyscale and palettes are widened).

    Raises:
        NotAPng: no PNG, a damaged one, or a kind that is not read (16 bit, interlaced, too large).
    """
    width, height, colour_type = _read_header(data)
    packed, palette, transparency = bytearray(), b"", b""
    for kind, body in chunks(data):
        if kind == b"IDAT":
            packed += body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            transparency = body
    channels = _CHANNELS[colour_type]
    stride = width * channels
    unpacker = zlib.decompressobj()
    try:
        lines = unpacker.decompress(bytes(packed), height * (stride + 1))
    except zlib.error as error:
        raise NotAPng(f"the pixel data cannot be unpacked: {error}") from error
    if len(lines) != height * (stride + 1):
        raise NotAPng(f"{len(lines)} bytes of pixel data, {height * (stride + 1)} are needed")
    return _widened(Raster(width, height, channels, _unfiltered(lines, stride, channels)), palette, transparency)


def size(data: bytes) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises:
        NotAPng: as :func:`decode`.
    """
    return _read_header(data)[:2]


def texts(data: bytes) -> dict[str, str]:
    """The ``tEXt`` chunks of a PNG by key."""
    found = {}
    for kind, body in chunks(data):
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            found[key.decode("latin-1")] = value.decode("latin-1")
    return found


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of every chunk, checksums verified.

    Raises:
        NotAPng: no signature, a cut chunk, a wrong checksum.
    """
    if not data.startswith(SIGNATURE):
        raise NotAPng("the signature is missing")
    position = len(SIGNATURE)
    while position < len(data):
        if position + 12 > len(data):
            raise NotAPng("the file ends within a chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        end = position + 12 + length
        if end > len(data):
            raise NotAPng("the file ends within a chunk")
        if zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end], "big"):
            raise NotAPng(f"the checksum of chunk {kind!r} is wrong")
        yield kind, body
        position = end


def _read_header(data: bytes) -> tuple[int, int, int]:
    kind, body = next(chunks(data), (b"", b""))
    if kind != b"IHDR" or len(body) != 13:
        raise NotAPng("the header is missing")
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", body)
    if depth != 8 or colour_type not in _CHANNELS or interlace:
        raise NotAPng(f"depth {depth}, colour type {colour_type}, interlace {interlace} is not read")
    if not 0 < width * height <= MAX_PIXELS:
        raise NotAPng(f"{width} x {height} pixels is not a size that is read")
    return width, height, colour_type


def _header(raster: Raster) -> bytes:
    colour_type = _COLOUR_TYPES[raster.channels]
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", raster.width, raster.height, 8, colour_type, 0, 0, 0))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text_chunk(key: str, value: str) -> bytes:
    return _chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1", "backslashreplace"))


def _filtered(raster: Raster) -> bytes:
    stride = raster.width * raster.channels
    return b"".join(b"\0" + raster.data[row * stride : (row + 1) * stride] for row in range(raster.height))


def _unfiltered(lines: bytes, stride: int, step: int) -> bytes:
    previous = bytearray(stride)
    rows = []
    for start in range(0, len(lines), stride + 1):
        row = bytearray(lines[start + 1 : start + 1 + stride])
        _undo_filter(lines[start], row, previous, step)
        rows.append(bytes(row))
        previous = row
    return b"".join(rows)


def _undo_filter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    if kind == 0:
        return
    if kind > 4:
        raise NotAPng(f"line filter {kind} does not exist")
    for i in range(len(row)):
        left = row[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        row[i] = (row[i] + _prediction(kind, left, above[i], corner)) & 255


def _prediction(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 2:
        return up
    if kind == 3:
        return (left + up) // 2
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


def _widened(raster: Raster, palette: bytes, transparency: bytes) -> Raster:
    if raster.channels >= 3:
        return raster
    data = raster.data
    if raster.channels == 2:
        rgba = bytearray(2 * len(data))
        for channel in range(3):
            rgba[channel::4] = data[0::2]
        rgba[3::4] = data[1::2]
        return Raster(raster.width, raster.height, 4, bytes(rgba))
    tables = [bytes(range(256))] * 3 if not palette else [palette[c::3].ljust(256, b"\0") for c in range(3)]
    if palette and transparency:
        tables.append(transparency.ljust(256, b"\xff"))
    wide = bytearray(len(tables) * len(data))
    for channel, table in enumerate(tables):
        wide[channel :: len(tables)] = data.translate(table)
    return Raster(raster.width, raster.height, len(tables), bytes(wide))
