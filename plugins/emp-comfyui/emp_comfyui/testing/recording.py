"""A recorded scenario: what a real ComfyUI server said to its clients, as a timeline of events."""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from emp_comfyui.testing import binary_frames

Event = Mapping[str, Any]
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@attrs.frozen
class Recording:
    """The events of a scenario, and questions about them. An event is named by its place in :attr:`events`."""

    scenario: str
    events: tuple[Event, ...] = attrs.field(repr=False)

    @classmethod
    def load(cls, source: Mapping[str, Any] | Path | str) -> "Recording":
        """From a recording file, or its parsed content.

        Raises:
            ValueError: another format than 1.
        """
        content = source
        if not isinstance(content, Mapping):
            content = json.loads(Path(content).read_text(encoding="utf-8"))
        if not isinstance(content, Mapping) or content.get("format") != 1:
            raise ValueError("this is no recording of format 1, the only one that is read")
        return cls(str(content["scenario"]), tuple(content["events"]))

    def posts(self) -> list[int]:
        """All ``POST /prompt``."""
        return [place for place in range(len(self.events)) if self.is_request(place, "POST", "/prompt")]

    def is_request(self, place: int, method: str, path: str) -> bool:
        """Whether the event is an answered request of that kind; ``/api`` in the recording does not matter."""
        event = self.events[place]
        if event["kind"] != "http" or "response" not in event:
            return False
        return bool(event["request"]["method"] == method and route(event["request"]["path"]) == path)

    def sent_json(self, place: int) -> Any:
        """The JSON body of a request, or None."""
        return event_json(self.events[place]["request"].get("body"))

    def answered_json(self, place: int) -> Any:
        """The JSON body of an answer, or None."""
        return event_json(self.events[place]["response"].get("body"))

    def status(self, place: int) -> int:
        """The HTTP status of an answer."""
        return int(self.events[place]["response"]["status"])

    def client_id_of(self, post: int) -> str | None:
        """The client_id that a posted prompt carries."""
        body = self.sent_json(post)
        if not isinstance(body, dict):
            return None
        extra = body.get("extra_data")
        inner = extra.get("client_id") if isinstance(extra, dict) else None
        found = body.get("client_id", inner)
        return None if found is None else str(found)

    def prompt_id_of(self, post: int) -> str | None:
        """The prompt id that a post was answered with; None if it was refused."""
        answer = self.answered_json(post)
        return str(answer["prompt_id"]) if isinstance(answer, dict) and "prompt_id" in answer else None

    def sockets_of(self, client_id: str) -> list[int]:
        """The ``ws_open`` events of a clientId, in order."""
        found = []
        for place, event in enumerate(self.events):
            if event["kind"] == "ws_open":
                own = event["request"].get("query", {}).get("clientId")
                if (own or self._told_sid(event["client"])) == client_id:
                    found.append(place)
        return found

    def _told_sid(self, client: str) -> str | None:
        for event in self.events:
            if event["kind"] == "ws_recv" and event["client"] == client and event.get("json"):
                sid = event["json"]["data"].get("sid")
                return None if sid is None else str(sid)
        return None

    def frames_of(self, prompt_id: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """Place, type and data of the text frames about a prompt, whoever got them."""
        for place, event in enumerate(self.events):
            frame = event.get("json") if event["kind"] == "ws_recv" else None
            if isinstance(frame, dict) and frame["data"].get("prompt_id") == prompt_id:
                yield place, str(frame["type"]), frame["data"]

    def start_of(self, prompt_id: str, post: int) -> int | None:
        """Where a prompt was seen to run for the first time after it was posted."""
        return next((place for place, _, _ in self.frames_of(prompt_id) if place > post), None)

    def end_of(self, prompt_id: str, post: int) -> int | None:
        """Where the history entry of a prompt exists: at its last ``status``, before ``executing`` null."""
        ended = None
        for place, kind, data in self.frames_of(prompt_id):
            if place < post:
                continue
            if kind == "executing" and data["node"] is None:
                return place
            if kind in _ENDS and data.get("exception_type") != "ExecutionBlocked":
                ended = place
        if ended is not None:
            return ended
        return next((place for place in range(post, len(self.events)) if self._shows(place, prompt_id)), None)

    def _shows(self, place: int, prompt_id: str) -> bool:
        event = self.events[place]
        if event["kind"] != "http" or not route(event["request"]["path"]).startswith("/history"):
            return False
        answer = self.answered_json(place) if "response" in event else None
        return isinstance(answer, dict) and isinstance(answer.get(prompt_id), dict)

    def history_entry(self, prompt_id: str, post: int) -> dict[str, Any]:
        """The history entry of a prompt as it was recorded; put together from its frames if nobody asked for it."""
        for place in range(post, len(self.events)):
            if self._shows(place, prompt_id):
                return dict(self.answered_json(place)[prompt_id])
        return self._entry_from_frames(prompt_id, post)

    def _entry_from_frames(self, prompt_id: str, post: int) -> dict[str, Any]:
        outputs, messages, success = {}, [], False
        for place, kind, data in self.frames_of(prompt_id):
            if place < post:
                continue
            if kind == "executed":
                outputs[data["node"]] = data["output"]
            elif kind.startswith("execution_") and data.get("exception_type") != "ExecutionBlocked":
                messages.append([kind, dict(data)])
                success = kind == "execution_success"
        status = {"status_str": "success" if success else "error", "completed": success, "messages": messages}
        return {"prompt": self.queue_item(post), "outputs": outputs, "status": status, "meta": {}}

    def queue_item(self, post: int) -> list[Any]:
        """A prompt as ``/queue`` shows it."""
        body, answer = self.sent_json(post), self.answered_json(post)
        extra = dict(body.get("extra_data", {}))
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        return [answer["number"], answer["prompt_id"], body["prompt"], extra, []]


def route(path: str) -> str:
    """A path without ``/api``."""
    return path.removeprefix("/api") if path.startswith("/api/") else path


def event_json(body: Mapping[str, Any] | None) -> Any:
    """The parsed body of a recorded request or answer; a text body may be JSON as well."""
    if body is None:
        return None
    if body.get("kind") == "text":
        try:
            return json.loads(body["text"])
        except json.JSONDecodeError:
            return None
    return body.get("json")


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The value with every string (also every key) that is in ``names`` replaced."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [renamed(each, names) for each in value]
    if isinstance(value, Mapping):
        return {names.get(key, key): renamed(each, names) for key, each in value.items()}
    return value


def binary_frame(event: Event, names: Mapping[str, str]) -> bytes | None:
    """The bytes of a recorded binary frame, ids in its metadata replaced; None if it was too large to be kept."""
    if not event.get("base64"):
        return None
    frame = base64.b64decode(event["base64"])
    if binary_frames.event_type(frame) != binary_frames.PREVIEW_IMAGE_WITH_METADATA:
        return frame
    (length,) = struct.unpack_from(">I", frame, 4)
    metadata = renamed(json.loads(frame[8 : 8 + length]), names)
    packed = json.dumps(metadata).encode()
    return struct.pack(">II", binary_frames.PREVIEW_IMAGE_WITH_METADATA, len(packed)) + packed + frame[8 + length :]
