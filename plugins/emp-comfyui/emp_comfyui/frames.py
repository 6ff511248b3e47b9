"""What ComfyUI sends over its web socket, decoded. What is not understood is skipped: custom nodes send types of their own."""

import json
import struct
from typing import Any

from attrs import frozen

from emp_core.connectors.websocket import Frame

__all__ = ["Message", "Picture", "ProgressText", "decode", "picture_type"]

_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


@frozen
class Message:
    """A text frame: ``{"type", "data"}``."""

    type: str
    data: dict[str, Any]

    @property
    def prompt_id(self) -> str | None:
        """The prompt that it is about; not all messages say."""
        value = self.data.get("prompt_id")
        return value if isinstance(value, str) else None


@frozen
class Picture:
    """A picture: a preview, or an output of a node that sends its outputs. Only the node tells.

    Attributes:
        node_id, prompt_id: None in frames without metadata.
    """

    data: bytes
    media_type: str
    node_id: str | None = None
    prompt_id: str | None = None


@frozen
class ProgressText:
    """A node's own words on how far it is."""

    node_id: str
    text: str


def decode(frame: Frame) -> Message | Picture | ProgressText | None:
    """Decode a frame; None: nothing that this connector knows."""
    return _decode_text(frame) if isinstance(frame, str) else _decode_binary(frame)


def picture_type(data: bytes) -> str | None:
    """The media type of a picture, by its first bytes; None: no picture that browsers show."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC if data.startswith(magic)), None)


def _decode_text(frame: str) -> Message | None:
    try:
        value = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    data = value.get("data")
    return Message(value["type"], data if isinstance(data, dict) else {})


def _decode_binary(frame: bytes) -> Picture | ProgressText | None:
    if len(frame) < 8:
        return None
    # A big-endian uint32 says what it is; the second one is a picture's format, or the length of what precedes the rest.
    event, second = struct.unpack_from(">II", frame)
    body = frame[8:]
    match event:
        case 1:  # PREVIEW_IMAGE: the format is looked up in the picture itself
            media_type = picture_type(body)
            return None if media_type is None else Picture(body, media_type)
        case 3 if second <= len(body):  # TEXT
            return ProgressText(body[:second].decode("utf-8", "replace"), body[second:].decode("utf-8", "replace"))
        case 4 if second <= len(body):  # PREVIEW_IMAGE_WITH_METADATA
            return _picture_with_metadata(body[:second], body[second:])
    return None


def _picture_with_metadata(metadata: bytes, body: bytes) -> Picture | None:
    try:
        told = json.loads(metadata)
    except (ValueError, RecursionError):
        return None
    media_type = picture_type(body)
    if not isinstance(told, dict) or media_type is None:
        return None
    node_id, prompt_id = told.get("node_id"), told.get("prompt_id")
    return Picture(
        body,
        media_type,
        node_id if isinstance(node_id, str) else None,
        prompt_id if isinstance(prompt_id, str) else None,
    )
