"""What kind of job a workflow is: workflows of one kind take about as long on one server."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["kind_of"]

_SIZES = (
    "width",
    "height",
    "batch_size",
    "steps",
    "length",
    "frames",
    "frame_count",
    "num_frames",
    "resolution",
    "upscale_by",
)
_MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")


def kind_of(graph: Mapping[str, Mapping[str, Any]]) -> str:
    """A digest of what decides how long a workflow takes: its nodes' classes, model files, sizes and steps; no seeds, no texts."""
    nodes = sorted([str(node["class_type"]), *_telling(node["inputs"])] for node in graph.values())
    return hashlib.blake2b(json.dumps(nodes).encode(), digest_size=12).hexdigest()


def _telling(inputs: Mapping[str, Any]) -> list[str]:
    return sorted(
        f"{name}={value}"
        for name, value in inputs.items()
        if (isinstance(value, int | float) and name in _SIZES)
        or (isinstance(value, str) and value.lower().endswith(_MODEL_FILES))
    )
