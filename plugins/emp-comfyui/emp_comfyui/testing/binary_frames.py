"""Binary web socket frames as a ComfyUI server packs them.

Every frame begins with a big-endian uint32 event type. Seen from a real server: 1 (preview: format, image), 3 (progress
text: length, node id, text) and 4 (preview with metadata: length, JSON, image).
"""

import json
import struct
from collections.abc import Mapping

PREVIEW_IMAGE = 1
TEXT = 3
PREVIEW_IMAGE_WITH_METADATA = 4

NAMES = {PREVIEW_IMAGE: "PREVIEW_IMAGE", TEXT: "TEXT", PREVIEW_IMAGE_WITH_METADATA: "PREVIEW_IMAGE_WITH_METADATA"}
"""Names of the event types, as :attr:`emp_comfyui.testing.Faults.drop_frames` takes them."""

_FORMATS = {"image/jpeg": 1, "image/png": 2}


def preview(image: bytes, image_type: str) -> bytes:
    """A preview without metadata (event type 1). ``image_type`` is ``image/jpeg`` or ``image/png``."""
    return struct.pack(">II", PREVIEW_IMAGE, _FORMATS[image_type]) + image


def preview_with_metadata(image: bytes, image_type: str, metadata: Mapping[str, object]) -> bytes:
    """A preview that says whose it is (event type 4)."""
    described = json.dumps({**metadata, "image_type": image_type}).encode()
    return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(described)) + described + image


def text(node_id: str, message: str) -> bytes:
    """A line of progress text (event type 3)."""
    node = node_id.encode()
    return struct.pack(">II", TEXT, len(node)) + node + message.encode()


def event_type(frame: bytes) -> int:
    """The event type of a frame."""
    (kind,) = struct.unpack_from(">I", frame)
    return int(kind)
