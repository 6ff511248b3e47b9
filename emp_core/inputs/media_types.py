"""What a file is: by its first bytes, by what is said of it, by its name; in this order."""

import mimetypes
import re
from collections.abc import Iterable

__all__ = ["HEAD_BYTES", "UNKNOWN", "extension_of", "is_accepted", "settled_type", "type_by_name"]

HEAD_BYTES = 512
"""So many of a file's first bytes tell what it is."""

UNKNOWN = "application/octet-stream"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\x76\x2f\x31\x01", "image/x-exr"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"#?RADIANCE", "image/vnd.radiance"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (b"glTF", "model/gltf-binary"),
    (b"Kaydara FBX Binary  \0", "model/vnd.fbx"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x7fELF", "application/x-elf"),
    (b"MZ", "application/x-msdownload"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_AIFF = (b"AIFF", b"AIFC")
_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_SHORT_BRANDS = re.compile(rb"3g[p2]")
_EITHER = {"video/mp4": "audio/mp4", "video/webm": "audio/webm", "video/x-matroska": "audio/x-matroska"}
"""Containers of moving pictures that may hold sound alone."""
_WRAPPERS = ("application/zip", "application/gzip")
"""What other formats are wrapped in, so that the first bytes do not tell which."""
_SURE = frozenset(
    {
        *(media_type for _, media_type in _MAGIC),
        *_RIFF.values(),
        *_BRANDS.values(),
        "image/bmp",
        "audio/ogg",
        "video/webm",
    }
) - {"audio/mpeg", "video/mpeg"}
"""Types whose first bytes always tell: what does not begin so is something else."""
_SAME = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "video/avi": "video/x-msvideo",
    "video/x-m4v": "video/mp4",
    "application/ogg": "audio/ogg",
    "application/mp4": "video/mp4",
}
_BY_EXTENSION = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".exr": "image/x-exr",
    ".hdr": "image/vnd.radiance",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".oga": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".wav": "audio/wav",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".fbx": "model/vnd.fbx",
    ".ply": "model/ply",
    ".usdz": "model/vnd.usdz+zip",
}
"""Where systems disagree, or do not know: what the machine's own tables say is not asked first."""


def settled_type(head: bytes, *, said: str | None, told: str | None, name: str) -> tuple[str, ...]:
    """What a file is: one type, or two where its bytes leave open whether it is pictures or sound alone.

    Args:
        head: its first bytes, `HEAD_BYTES` of them or all.
        said: what the job says that it is.
        told: what its source says; often wrong, and so no reason to refuse it.
        name: its file name.

    Raises:
        ValueError: it is something else than was said; says what.
    """
    found = _sniff(head)
    said = None if said in (None, UNKNOWN) else _SAME.get(said, said)
    if said is not None and not _can_be(said, found):
        raise ValueError(f"it is {found[0] if found else 'something else'}, and {said} was said")
    guesses = [_SAME.get(one, one) for one in (said, told, type_by_name(name)) if one is not None and one != UNKNOWN]
    if found and found[0] not in _WRAPPERS:
        return next(((one,) for one in guesses if one in found), found)
    fitting = [one for one in guesses if _can_be(one, found)]
    return (*fitting[:1], *found)[:1] or (UNKNOWN,)


def _can_be(media_type: str, found: tuple[str, ...]) -> bool:
    """Whether bytes that look like ``found`` can be such a file."""
    if not found:
        return media_type not in _SURE
    if found[0] in _WRAPPERS:
        return media_type not in _SURE or media_type in found
    kinds = {one.partition("/")[0] for one in found}
    return media_type.partition("/")[0] in kinds


def _sniff(head: bytes) -> tuple[str, ...]:
    """What a file is by its first bytes: nothing when they do not tell, two types where they leave a choice."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return (_RIFF[head[8:12]],)
    if head[:4] == b"FORM" and head[8:12] in _AIFF:
        return ("audio/aiff",)
    if head[4:8] == b"ftyp":
        return _brand(head[8:12])
    if head[:4] == b"OggS":
        # The first page's body names the codec; a stream with pictures begins with them.
        return ("video/ogg",) if b"theora" in head[:64] else ("audio/ogg",)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _either("video/webm" if b"webm" in head[:64] else "video/x-matroska")
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return ("image/bmp",)
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return (media_type,)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return ("text/html",)
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return ("image/svg+xml",)
    if head[:1] == b"\xff" and len(head) > 1 and (found := _sound_frame(head[1])) is not None:
        return (found,)
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return ("video/mp2t",)
    return ()


def type_by_name(name: str) -> str | None:
    """What a file is by its name; None: the name does not tell."""
    _, dot, extension = name.rpartition(".")
    if not dot:
        return None
    return _BY_EXTENSION.get(f".{extension.lower()}") or mimetypes.guess_type(name)[0]


def extension_of(media_type: str) -> str:
    """What names of such files end in; empty for what is not known."""
    own = next((extension for extension, known in _BY_EXTENSION.items() if known == media_type), None)
    return own or (mimetypes.guess_extension(media_type) or "" if media_type != UNKNOWN else "")


def is_accepted(media_type: str, accepted: Iterable[str]) -> bool:
    """Whether a type is one of those: ``image/png``, ``image/*``, ``*/*``; other names of one type are the same."""
    media_type = _SAME.get(media_type, media_type)
    kind = media_type.partition("/")[0]
    return any(one in ("*/*", f"{kind}/*", media_type) or _SAME.get(one) == media_type for one in accepted)


def _sound_frame(second: int) -> str | None:
    """What a frame of sound that begins with 0xFF is: MPEG layer II or III, or AAC."""
    if second & 0xE0 == 0xE0 and second & 0x06 in (0x02, 0x04):
        return "audio/mpeg"
    return "audio/aac" if second & 0xF6 == 0xF0 else None


def _brand(brand: bytes) -> tuple[str, ...]:
    if brand in _BRANDS:
        return (_BRANDS[brand],)
    return ("video/3gpp", "audio/3gpp") if _SHORT_BRANDS.match(brand) else _either("video/mp4")


def _either(media_type: str) -> tuple[str, ...]:
    return (media_type, _EITHER[media_type])
