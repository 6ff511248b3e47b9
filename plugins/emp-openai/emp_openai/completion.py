"""`Completion`: a chat completion, put together from its chunks, or from its one whole answer."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field

from emp_core.errors import ContentRefused, JobFailed

__all__ = ["Completion", "json_in"]

_THINKING = ("reasoning_content", "reasoning")
_FAILED = ("error", "abort")
"""What routers and vLLM say in the place of a reason to finish when there was none."""


@define
class _Choice:
    text: list[str] = field(factory=list)
    thinking: list[str] = field(factory=list)
    refusal: list[str] = field(factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(factory=dict)
    logprobs: list[Any] = field(factory=list)
    pictures: list[str] = field(factory=list)
    finish_reason: str | None = None

    def take(self, delta: Mapping[str, Any]) -> str:
        """Add a piece of a message, or a whole one; gives its text."""
        piece = delta.get("content")
        piece = piece if isinstance(piece, str) else ""
        self.text.append(piece)
        self.thinking.extend(str(delta[name]) for name in _THINKING if isinstance(delta.get(name), str))
        if isinstance(delta.get("refusal"), str):
            self.refusal.append(delta["refusal"])
        self.pictures.extend(_pictures_in(delta.get("images")))
        calls = delta.get("tool_calls")
        for place, told in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(told, Mapping):
                index = told.get("index")
                self._take_call(index if isinstance(index, int) else place, told)
        return piece

    def _take_call(self, index: int, told: Mapping[str, Any]) -> None:
        """Add a piece of a tool call: names come once, arguments in pieces."""
        call = self.tool_calls.setdefault(
            index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = told.get("id") or call["id"]
        function = told.get("function")
        if isinstance(function, Mapping):
            call["function"]["name"] = function.get("name") or call["function"]["name"]
            arguments = function.get("arguments")
            call["function"]["arguments"] += arguments if isinstance(arguments, str) else ""

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"text": "".join(self.text), "finish_reason": self.finish_reason}
        if thinking := "".join(self.thinking):
            shown["thinking"] = thinking
        if self.tool_calls:
            shown["tool_calls"] = [call for _, call in sorted(self.tool_calls.items())]
        if self.logprobs:
            shown["logprobs"] = self.logprobs
        return shown


@define
class Completion:
    """A completion as far as it came.

    Attributes:
        pieces: chunks that had something in them: tokens, more or less.
        usage: as the server tells it; None: it does not.
        reading: how many tokens of the prompt were read, of how many; None: it does not say (llama.cpp does, if asked).
    """

    pieces: int = 0
    id: str = ""
    usage: Any = None
    reading: tuple[int, int] | None = None
    _choices: dict[int, _Choice] = field(factory=dict)

    def take(self, chunk: Mapping[str, Any]) -> str:
        """Add a chunk; gives the new text of the first choice."""
        self.id = str(chunk.get("id") or self.id)
        self.usage = chunk.get("usage") or self.usage
        if isinstance(reading := chunk.get("prompt_progress"), Mapping):
            self.reading = (int(reading.get("processed") or 0), int(reading.get("total") or 0))
        choices = chunk.get("choices")
        new = ""
        for told in choices if isinstance(choices, list) else ():
            if isinstance(told, Mapping):
                index = told.get("index")
                index = index if isinstance(index, int) else 0
                piece = self._take(self._choices.setdefault(index, _Choice()), told)
                new += piece if index == 0 else ""
        return new

    def _take(self, choice: _Choice, told: Mapping[str, Any]) -> str:
        delta = told.get("delta") or told.get("message")
        delta = delta if isinstance(delta, Mapping) else {}
        if any(delta.get(name) for name in ("content", "tool_calls", "images", *_THINKING)):
            self.pieces += 1
        if isinstance(logprobs := told.get("logprobs"), Mapping) and isinstance(logprobs.get("content"), list):
            choice.logprobs += logprobs["content"]
        choice.finish_reason = str(told["finish_reason"]) if told.get("finish_reason") else choice.finish_reason
        return choice.take(delta)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(self._choices[0].text) if 0 in self._choices else ""

    @property
    def pictures(self) -> list[str]:
        """The pictures of all choices, as data URLs: what models that paint give besides text (OpenRouter, LiteLLM)."""
        return [picture for _, choice in sorted(self._choices.items()) for picture in choice.pictures]

    @property
    def stage(self) -> str:
        """How far it is, in words."""
        if self.pieces == 0 and self.reading is not None:
            return "{} of {} tokens of the prompt read".format(*self.reading)
        return f"{self.pieces} tokens"

    @property
    def answers(self) -> int:
        """How many answers have begun: as many as were asked for by ``n``."""
        return len(self._choices)

    @property
    def is_whole(self) -> bool:
        """Whether every choice came to its end. ``[DONE]`` alone says nothing: interrupted answers have it, too."""
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    def prove_content(self, endpoint: str, model: str) -> None:
        """Find out that it is an answer.

        Raises:
            ContentRefused: it is a refusal, or a filter took it.
            JobFailed: it says that it failed.
        """
        for choice in self._choices.values():
            details = {"finish_reason": choice.finish_reason, "model": model}
            refusal = "".join(choice.refusal)
            if refusal or choice.finish_reason == "content_filter":
                said = refusal or "its content filter took the answer"
                raise ContentRefused(f"{endpoint} refuses: {said}"[:1000], details=details)
            if choice.finish_reason in _FAILED:
                raise JobFailed(f"{endpoint} gave up its answer", details={**details, "reason": "server_error"})

    def as_dict(self) -> dict[str, Any]:
        """As it stands in results: the first choice, and all of them if there are several."""
        first, *others = (choice.as_dict() for _, choice in sorted(self._choices.items()))
        return {"id": self.id, **first, **({"choices": [first, *others]} if others else {})}


def _pictures_in(told: Any) -> Iterator[str]:
    for one in told if isinstance(told, list) else ():
        address = one.get("image_url") if isinstance(one, Mapping) else None
        url = address.get("url") if isinstance(address, Mapping) else None
        if isinstance(url, str) and url.startswith("data:"):
            yield url


def json_in(text: str) -> Any:
    """The document that was asked for; None: it was cut by its length, or is none. The text is there, and it was paid for."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
