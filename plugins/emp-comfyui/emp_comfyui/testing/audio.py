"""Audio files of silence, made by hand: FLAC, MP3 and Opus, for the nodes that save audio.

FLAC: RFC 9639, constant subframes. MP3: MPEG-1 layer III frames without content. Opus: RFC 7845, packets of silence in Ogg.
"""

import hashlib
import struct
from collections.abc import Mapping

_FLAC_BLOCK = 4096
_VENDOR = b"emp-comfyui"


def flac(seconds: float, rate: int, channels: int, comments: Mapping[str, str] | None = None) -> bytes:
    """A FLAC file of 16 bit silence, with ``comments`` as tags."""
    samples = round(seconds * rate)
    packed = (rate << 44) | ((channels - 1) << 41) | (15 << 36) | samples
    digest = hashlib.md5(bytes(2 * channels * samples), usedforsecurity=False).digest()
    info = struct.pack(">HH6xQ", _FLAC_BLOCK, _FLAC_BLOCK, packed) + digest
    tags = _vorbis_comment(comments or {})
    head = b"fLaC" + b"\0" + len(info).to_bytes(3, "big") + info + b"\x84" + len(tags).to_bytes(3, "big") + tags
    frames = []
    for number, start in enumerate(range(0, samples, _FLAC_BLOCK)):
        frames.append(_flac_frame(number, min(_FLAC_BLOCK, samples - start), channels))
    return head + b"".join(frames)


def mp3(seconds: float, comments: Mapping[str, str] | None = None) -> bytes:
    """An MP3 file of silence: 128 kbit/s, 44.1 kHz, mono, with ``comments`` as ID3 texts."""
    frame = b"\xff\xfb\x90\xc4".ljust(417, b"\0")
    return _id3(comments or {}) + frame * max(1, round(seconds * 44100 / 1152))


def opus(seconds: float, comments: Mapping[str, str] | None = None) -> bytes:
    """An Opus file of silence: packets of 20 ms, mono."""
    packets = [b"\xf8\xff\xfe"] * max(1, round(seconds / 0.02))
    head = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48000, 0, 0)
    tags = b"OpusTags" + _vorbis_comment(comments or {})
    pages = [_ogg_page([head], 0, 0, 2), _ogg_page([tags], 0, 1, 0)]
    for number, start in enumerate(range(0, len(packets), 50)):
        part = packets[start : start + 50]
        ends = start + 50 >= len(packets)
        pages.append(_ogg_page(part, 960 * (start + len(part)), number + 2, 4 if ends else 0))
    return b"".join(pages)


def _id3(comments: Mapping[str, str]) -> bytes:
    if not comments:
        return b""
    texts = [f"\x03{key}\0{value}\0".encode() for key, value in comments.items()]
    frames = b"".join(b"TXXX" + _seven_bits(len(text)) + b"\0\0" + text for text in texts)
    return b"ID3\x04\0\0" + _seven_bits(len(frames)) + frames


def _seven_bits(number: int) -> bytes:
    return bytes((number >> shift) & 127 for shift in (21, 14, 7, 0))


def _flac_frame(number: int, samples: int, channels: int) -> bytes:
    header = (
        b"\xff\xf8\x70" + bytes([((channels - 1) << 4) | 8]) + _coded_number(number) + struct.pack(">H", samples - 1)
    )
    frame = header + bytes([_crc(header, 8, 0x07)]) + b"\0\0\0" * channels
    return frame + struct.pack(">H", _crc(frame, 16, 0x8005))


def _coded_number(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _vorbis_comment(comments: Mapping[str, str]) -> bytes:
    listed = [f"{key}={value}".encode() for key, value in comments.items()]
    parts = [struct.pack("<I", len(_VENDOR)), _VENDOR, struct.pack("<I", len(listed))]
    parts.extend(struct.pack("<I", len(each)) + each for each in listed)
    return b"".join(parts)


def _ogg_page(packets: list[bytes], position: int, number: int, flags: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    if len(lacing) > 255:
        return _ogg_long_packet(packets[0], lacing, number, flags)
    head = b"OggS\0" + struct.pack("<BqIII", flags, position, 1, number, 0) + bytes([len(lacing)]) + lacing
    page = head + b"".join(packets)
    checksum = struct.pack("<I", _crc(page, 32, 0x04C11DB7))
    return page[:22] + checksum + page[26:]


def _ogg_long_packet(packet: bytes, lacing: bytes, number: int, flags: int) -> bytes:
    """Tags too long for a page (a large prompt) are left out: a header page must stay one page for simple readers."""
    del packet, lacing
    return _ogg_page([b"OpusTags" + _vorbis_comment({})], 0, number, flags)


def _crc(data: bytes, width: int, polynomial: int) -> int:
    top, mask, value = 1 << (width - 1), (1 << width) - 1, 0
    for byte in data:
        value ^= byte << (width - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial) & mask if value & top else (value << 1) & mask
    return value
