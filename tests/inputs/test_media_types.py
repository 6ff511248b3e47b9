"""What a file is, is told by its bytes first."""

import pytest

from emp_core.inputs.media_types import extension_of, is_accepted, settled_type, type_by_name

from .sources import HTML, MP4, PNG, WAV

TEXT = b"just some words"
ZIP = b"PK\x03\x04" + bytes(30)
OGG = b"OggS" + bytes(24) + b"\x01vorbis"
WEBM = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x86\x81\x01\x42\x82\x84webm"


def settled(head: bytes, said: str | None = None, told: str | None = None, name: str = "") -> tuple[str, ...]:
    return settled_type(head, said=said, told=told, name=name)


@pytest.mark.parametrize(
    ("head", "types"),
    [
        (PNG, ("image/png",)),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", ("image/jpeg",)),
        (b"GIF89a....", ("image/gif",)),
        (b"RIFF\x24\0\0\0WEBPVP8 ", ("image/webp",)),
        (b"BM\x36\0\0\0\0\0\0\0\x36", ("image/bmp",)),
        (b"II*\0\x08\0\0\0", ("image/tiff",)),
        (b"\0\0\0\x1cftypavif", ("image/avif",)),
        (b"\0\0\0\x1cftypheic", ("image/heic",)),
        (b'<?xml version="1.0"?><svg xmlns=', ("image/svg+xml",)),
        (WAV, ("audio/wav",)),
        (b"fLaC\0\0\0\x22", ("audio/flac",)),
        (b"ID3\x04\0\0", ("audio/mpeg",)),
        (b"\xff\xfb\x90\x64\0", ("audio/mpeg",)),
        (b"\xff\xf1\x50\x80", ("audio/aac",)),
        (OGG, ("audio/ogg",)),
        (b"\0\0\0\x20ftypM4A ", ("audio/mp4",)),
        (MP4, ("video/mp4", "audio/mp4")),
        (WEBM, ("video/webm", "audio/webm")),
        (b"\0\0\0\x14ftypqt  ", ("video/quicktime",)),
        (b"RIFF\x24\0\0\0AVI LIST", ("video/x-msvideo",)),
        (b"\x47" + bytes(187) + b"\x47" + bytes(9), ("video/mp2t",)),
        (b"glTF\x02\0\0\0", ("model/gltf-binary",)),
        (HTML, ("text/html",)),
        (b"\n\n<html>", ("text/html",)),
        (ZIP, ("application/zip",)),
        (TEXT, ("application/octet-stream",)),
        (b"\xff\xfea\0b\0", ("application/octet-stream",)),
        (b"", ("application/octet-stream",)),
    ],
)
def test_the_bytes_tell_what_a_file_is(head: bytes, types: tuple[str, ...]) -> None:
    assert settled(head) == types


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HTML, "image/png"),
        (WAV, "image/png"),
        (PNG, "audio/wav"),
        (TEXT, "image/png"),
        (ZIP, "image/png"),
        (PNG, "application/pdf"),
        (MP4, "image/gif"),
        (b"MZ\x90\0", "video/mp4"),
    ],
)
def test_a_file_that_is_something_else_than_was_said_is_told(head: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"and {said} was said"):
        settled(head, said)


@pytest.mark.parametrize(
    ("head", "said", "types"),
    [
        (PNG, "image/jpeg", ("image/png",)),
        (PNG, "application/octet-stream", ("image/png",)),
        (MP4, "audio/mp4", ("audio/mp4",)),
        (MP4, "audio/x-m4a", ("audio/mp4",)),
        (MP4, "application/mp4", ("video/mp4",)),
        (OGG, "application/ogg", ("audio/ogg",)),
        (ZIP, "model/vnd.usdz+zip", ("model/vnd.usdz+zip",)),
        (TEXT, "text/plain", ("text/plain",)),
        (TEXT, "audio/mpeg", ("audio/mpeg",)),
        (TEXT, "model/obj", ("model/obj",)),
    ],
)
def test_what_was_said_decides_where_the_bytes_leave_it_open(head: bytes, said: str, types: tuple[str, ...]) -> None:
    assert settled(head, said) == types


def test_what_a_server_or_a_name_tells_is_believed_only_where_the_bytes_do_not_tell() -> None:
    assert settled(TEXT, told="text/csv", name="a.txt") == ("text/csv",)
    assert settled(TEXT, name="scene.obj") == ("model/obj",)
    assert settled(PNG, told="text/html", name="a.jpg") == ("image/png",)
    assert settled(TEXT, told="image/png", name="cat.png") == ("application/octet-stream",)
    assert settled(MP4, name="song.m4a") == ("audio/mp4",)


@pytest.mark.parametrize(
    ("media_type", "accepted", "taken"),
    [
        ("image/png", ("image/*",), True),
        ("image/png", ("image/png", "image/jpeg"), True),
        ("image/jpg", ("image/jpeg",), True),
        ("audio/wav", ("audio/x-wav",), True),
        ("audio/wav", ("image/*", "video/*"), False),
        ("text/html", ("*/*",), True),
        ("imagex/png", ("image/*",), False),
    ],
)
def test_types_are_accepted_by_kind_by_name_or_all(media_type: str, accepted: tuple[str, ...], taken: bool) -> None:
    assert is_accepted(media_type, accepted) is taken


def test_names_and_types_lead_to_each_other() -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.wav", "a.flac", "a.mp4", "a.webm", "a.glb"):
        found = type_by_name(name)
        assert found is not None
        assert type_by_name("a" + extension_of(found)) == found
    assert type_by_name("README") is None
    assert extension_of("application/octet-stream") == ""
