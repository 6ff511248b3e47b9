"""Toy models: the last word of what they are told picks what they say."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

__all__ = ["FakeModel", "Said", "as_json", "logprobs_of", "tiny_models", "until_stop"]

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@frozen
class Said:
    """What one frame says."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@frozen
class FakeModel:
    """A model of the fake server.

    Attributes:
        capabilities: what ``/api/show`` tells: completion, tools, thinking, vision, insert, embedding.
        broken: what the loader says instead of loading it; None: it loads.
        runner_dies_after: frames after which its process ends under it; None: it does not.
        repeats_itself: whether Ollama gives up on its answer: a stream without a last frame.
    """

    capabilities: tuple[str, ...] = ("completion", "tools", "thinking")
    size_bytes: int = 27_000_000
    context_length: int = 4096
    broken: str | None = None
    runner_dies_after: int | None = None
    repeats_itself: bool = False

    def says(self, told: str, *, tools: bool, think: Any, wanted: Any) -> Iterator[Said]:
        """The frames of its answer to a text."""
        word = told.split()[-1] if told.split() else ""
        if wanted is not None and word not in ("wrong", "cut"):
            word = "json"
        match word:
            case "count" | "long":
                yield from (Said(f" {name}") for name in _NUMBERS * (20 if word == "long" else 1))
            case "forever":
                yield from (Said(word) for word in itertools.cycle((" tick", " tock")))
            case "think" if think is False:
                yield Said("<think> pondering quietly</think> done.")
            case "think":
                yield from (Said(thinking="pondering"), Said(thinking=" quietly"), Said("done."))
            case "weather" if tools:
                call = {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}
                yield Said(tool_calls=({"id": "call_1", "function": call},))
            case "json":
                yield from (Said('{"answer":'), Said(" 42}"))
            case "wrong":
                yield Said('{"reply": "none"}')
            case "emoji":
                yield Said("\N{GRINNING FACE}")
            case "nothing":
                return
            case _:
                yield from (Said(part) for part in ("Hello,", " I am", " a tiny test model."))

    def embedding(self, text: str, dimensions: int | None) -> list[float]:
        """A vector for a text, the same for the same text."""
        length = dimensions or 8
        place = sum(text.encode()) % length
        return [1.0 if place == index else 0.0 for index in range(length)]


def tiny_models() -> dict[str, FakeModel]:
    """What a fake server has unless told otherwise."""
    return {
        "tiny-chat:latest": FakeModel(),
        "tiny-slow:latest": FakeModel(size_bytes=350_000_000),
        "tiny-plain:latest": FakeModel(capabilities=("completion",)),
        "tiny-vision:latest": FakeModel(capabilities=("completion", "vision")),
        "tiny-embed:latest": FakeModel(capabilities=("embedding",)),
        "tiny-broken:latest": FakeModel(
            broken='tensor "blk.0.attn_q.weight" offset+size (8071296) exceeds file size (7374016)'
        ),
    }


def until_stop(frames: Iterable[Said], stops: Sequence[str]) -> Iterator[Said]:
    """The frames of an answer up to where one of these texts begins; within a frame, as the toys say whole words."""
    for one in frames:
        places = [one.text.find(stop) for stop in stops if stop in one.text]
        if not places:
            yield one
            continue
        if before := one.text[: min(places)]:
            yield Said(before)
        return


def logprobs_of(said: Said, top: int) -> list[dict[str, Any]]:
    """How sure the model was of a frame: always, as toys are."""
    sure = {"token": said.text, "logprob": 0, "bytes": list(said.text.encode())}
    return [{**sure, "top_logprobs": [sure][:top]}] if said.text else []


def as_json(frame: Mapping[str, Any]) -> bytes:
    """A frame as the real server writes it."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
