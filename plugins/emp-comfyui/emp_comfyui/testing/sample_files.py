"""A small file of any kind that ComfyUI produces, by the extension of its name."""

import json
import mimetypes
import posixpath
import struct

from emp_comfyui.testing import audio, jpeg, pictures, video, webp

CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".webp": "image/webp",
    ".webm": "video/webm",
    ".mp4": "video/mp4",
}


def content_type(name: str) -> str:
    """The content type by which ``/view`` gives a file."""
    kind = CONTENT_TYPES.get(posixpath.splitext(name)[1].lower())
    return kind or mimetypes.guess_type(name)[0] or "application/octet-stream"


def latent_file(width: int, height: int, count: int, prompt: str) -> bytes:
    """A latent as SaveLatent writes it: safetensors with a tensor of zeros and one that marks the format."""
    shape = [count, 4, height // 8, width // 8]
    size = 4 * shape[0] * shape[1] * shape[2] * shape[3]
    tensors = {
        "__metadata__": {"prompt": prompt},
        "latent_tensor": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [size, size]},
    }
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def sample_file(name: str) -> tuple[bytes, str]:
    """Bytes of the kind that the name's extension promises, and their content type; the picture depends on the name."""
    picture = pictures.plasma(64, 64, name)
    match posixpath.splitext(name)[1].lower():
        case ".png":
            data = picture.as_png()
        case ".jpg" | ".jpeg":
            data = jpeg.encode(picture)
        case ".webp":
            data = webp.encode(picture)
        case ".flac":
            data = audio.flac(0.1, 8000, 1)
        case ".mp3":
            data = audio.mp3(0.1)
        case ".opus":
            data = audio.opus(0.1)
        case ".mp4":
            data = video.mp4([picture], 8)
        case ".webm":
            data = video.webm([picture], 8)
        case ".latent":
            data = latent_file(64, 64, 1, "{}")
        case _:
            data = name.encode()
    return data, content_type(name)
