"""What of a recording is the same in every run, and what has another name in each."""

import base64
import json
import re
import struct
from collections.abc import Mapping
from typing import Any

import aiohttp
from attrs import define, field
from emp_comfyui.testing.recording import renamed

__all__ = ["Sameness", "are_tensors", "is_earlier", "shape", "stripped"]

_UNORDERED = ("executed", "current_outputs")
_TEMP_TAG = r"ComfyUI_temp_([a-z]{5})_"
_MADE_UP_SID = r'"sid": "([0-9a-f]{32})"'
_WORDS = ("tooltip", "description", "output_tooltips")


@define(eq=False)
class Sameness:
    """Makes what was recorded and what a fake server sends comparable.

    Attributes:
        sampled: only some of many runs were kept: numbers of prompts and files are chance.
        names: names of this run by those that were recorded.
    """

    sampled: bool
    names: dict[str, str] = field(factory=dict)
    _temp_tags: dict[str, str] = field(factory=dict)

    def learn(self, recorded: str, own: str) -> None:
        """Take note of what has another name here: the random part of temp names, ids that the server made up."""
        self._temp_tags.update(zip(re.findall(_TEMP_TAG, recorded), re.findall(_TEMP_TAG, own), strict=False))
        self.names.update(zip(re.findall(_MADE_UP_SID, recorded), re.findall(_MADE_UP_SID, own), strict=False))

    def outgoing(self, text: str) -> str:
        """A recorded path or parameter with the fake's ids and the random part of its temp names."""
        for recorded, own in self.names.items():
            if len(recorded) > 8:
                text = text.replace(recorded, own)
        for tag in re.findall(_TEMP_TAG, text):
            text = text.replace(tag, self._temp_tags.get(tag, tag))
        return text

    def message(self, message: aiohttp.WSMessage) -> Any:
        if message.type is aiohttp.WSMsgType.TEXT:
            return self.value(json.loads(message.data))
        if message.type is aiohttp.WSMsgType.BINARY:
            return self._binary(message.data)
        if message.type is aiohttp.WSMsgType.PONG:
            return "pong"
        return message.type.name

    def frame(self, event: Mapping[str, Any]) -> Any:
        if event["opcode"] == "pong":
            return "pong"
        if event.get("json") is not None:
            frame = event["json"]
            sid = frame["data"].get("sid")
            if sid is not None and not sid.startswith(("client", "me")):
                return self.value({**frame, "data": {**frame["data"], "sid": "made up"}})
            return self.value(frame)
        return self._binary(base64.b64decode(event["base64"]))

    def _binary(self, frame: bytes) -> Any:
        (kind,) = struct.unpack_from(">I", frame)
        if kind == 4:
            (length,) = struct.unpack_from(">I", frame, 4)
            metadata = self.value(json.loads(frame[8 : 8 + length]))
            return (kind, metadata, frame[8 + length :][:3])
        return (kind, frame[4:11]) if kind == 1 else (kind, frame[4:])

    def value(self, value: Any) -> Any:
        plain = stripped(renamed(value, self.names))
        return _unnumbered(plain) if self.sampled else plain


def stripped(value: Any) -> Any:
    """The value without what differs from run to run, or is another's wording."""
    if isinstance(value, str):
        return _stripped_text(value)
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain: dict[str, Any] = {}
    for key, each in value.items():
        if key in _WORDS or (key == "sid" and len(each) == 32):
            plain[key] = "made up" if key == "sid" else None
        elif key in _UNORDERED and isinstance(each, list):
            plain[key] = sorted(each)
        elif key in ("timestamp", "traceback"):
            plain[key] = type(each).__name__
        else:
            plain[_stripped_text(key)] = stripped(each)
    return {key: each for key, each in plain.items() if key not in _WORDS}


def _stripped_text(text: str) -> str:
    if text.startswith("tensor("):
        return "tensor"
    if text.startswith("**** ERROR: Saving image outside"):
        return text.splitlines()[0]
    text = re.sub(r"cannot identify image file '.*'", "cannot identify image file", text)
    return re.sub(r"ComfyUI_temp_[a-z]{5}_", "ComfyUI_temp_xxxxx_", text)


def _unnumbered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: 0 if key == "number" else _unnumbered(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unnumbered(each) for each in value]
    return re.sub(r"_[0-9]{5}_", "_00000_", value) if isinstance(value, str) else value


def is_earlier(got: Any, recorded: Any) -> bool:
    """A report of a step that the recorded client missed while it was away."""
    reports = ("progress", "progress_state")
    return isinstance(got, dict) and got.get("type") in reports and got != recorded


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value and not isinstance(value[0], str) else "list"
    return type(value).__name__


def are_tensors(recorded: bytes, got: bytes) -> bool:
    """Tensors: eight bytes of length, then a JSON header."""
    return recorded[8:10] == got[8:10] == b'{"'
