"""The demonstration: the whole way from the command line to a picture on disk."""

import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from importlib.machinery import ModuleSpec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from emp_comfyui.demo import demo

COMMAND = [sys.executable, "-m", "emp_core.cli", "demo", "comfyui"]


def environ_of(redis_url: str, folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "EMP_DATA_DIR": str(folder / "data"),
        "HUB_REDIS_URL": redis_url,
        # Where the user's own server is must not matter.
        "COMFYUI_HOST": "198.51.100.1",
    }


def test_the_demonstration_leaves_a_picture_that_opens(redis_url: str, tmp_path: Path):
    environ = environ_of(redis_url, tmp_path)
    ended = subprocess.run([*COMMAND, "--json"], env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    [artifact] = json.loads(ended.stdout)["data"]["result"]["artifacts"]
    assert artifact["media_type"] == "image/png"
    picture = Path(unquote(urlsplit(artifact["url"]).path))
    assert picture.is_relative_to(tmp_path / "data")
    assert decoded(picture.read_bytes()) == (512, 512)


def test_an_interrupted_demonstration_stops_its_prompt_and_ends(redis_url: str, tmp_path: Path):
    environ = environ_of(redis_url, tmp_path)
    with subprocess.Popen(
        COMMAND, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "KSampler" in line:
                    break
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=10)  # less than what a prompt gets to be stopped in
        finally:
            process.kill()
    assert process.returncode == 130
    assert "still runs" not in said


def decoded(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose pixels are all there."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        [length] = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind] = chunks.get(kind, b"") + data
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 2)
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)
    assert b"IEND" in chunks
    return width, height


def test_what_the_demonstration_lacks_is_named_with_the_package(monkeypatch: pytest.MonkeyPatch):
    def nothing_found(name: str, package: str | None = None) -> ModuleSpec | None:
        return None

    monkeypatch.setattr("emp_comfyui.demo.find_spec", nothing_found)
    assert "pip install 'emp-comfyui[testing]'" in (demo().missing or "")
