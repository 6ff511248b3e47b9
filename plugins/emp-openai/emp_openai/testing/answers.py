"""The fake server's answers to chats, pictures and embeddings: made of what it is told, the same for the same."""

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emp_openai.testing.talk import picture, told_by, words_of

__all__ = ["Chat", "embedded", "painted", "painting"]

_CALLS = (
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city":'}},
    {"index": 0, "function": {"arguments": '"Paris"}'}},
)
_MOST_WORDS = 5000
_NO_PICTURE = "SSBjYW5ub3QgcGFpbnQgdGhhdC4="
_PICTURES_COST = {"input_tokens": 3, "output_tokens": 100, "total_tokens": 103}


class Chat:
    """A chat completion: words, a refusal, or the call of a tool."""

    def __init__(self, name: str, body: Mapping[str, Any]) -> None:
        self.id = name
        self.body = body
        self.told = told_by(body)
        most = body.get("max_completion_tokens", body.get("max_tokens"))
        self.words = tuple(itertools.islice(words_of(self.told), _MOST_WORDS if most is None else most))
        self.refusal = "I cannot help with that." if self.told.endswith("refuse") else None
        finish = "length" if most is not None and len(self.words) == most else "stop"
        self.finish = "content_filter" if self.told.endswith("filtered") else finish

    @property
    def usage(self) -> dict[str, int]:
        """Tokens are words."""
        prompt, answer = len(self.told.split()), len(self.words)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        content = None if self.refusal else "".join(self.words)
        message = {"role": "assistant", "content": content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return {**self._identity("chat.completion"), "choices": [choice], "usage": self.usage}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """The answer in pieces."""
        calls = _CALLS if self.told.endswith("weather") and self.body.get("tools") else ()
        yield self._chunk({"role": "assistant", "content": ""})
        if self.refusal:
            yield self._chunk({"refusal": self.refusal})
        elif calls:
            yield from (self._chunk({"tool_calls": [call]}) for call in calls)
        else:
            yield from (self._chunk({"content": word}) for word in self.words)
        yield self._chunk({}, "tool_calls" if calls else self.finish)
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield {**self._identity("chat.completion.chunk"), "choices": [], "usage": self.usage}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._identity("chat.completion.chunk"), "choices": [choice]}

    def _identity(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": 1, "model": self.body["model"]}


def painted(body: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Pictures in one piece, or, if an address is asked for, where one is.

    Args:
        url: where pictures are.
    """
    pictures = [{"b64_json": one} for one in _pictures(body)]
    if told_by(body).endswith("address"):
        pictures = [{"url": url}]
    return {"created": 1, "data": pictures, "usage": _PICTURES_COST}


def painting(kind: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Pictures in pieces: previews, then what they become."""
    prefix = "image_generation" if kind == "images" else "image_edit"
    shade = _shade(body)
    for number in range(int(body.get("partial_images") or 0)):
        preview = {"partial_image_index": number, "b64_json": picture(shade + 50 + number)}
        yield {"type": f"{prefix}.partial_image", **preview}
    for one in _pictures(body):
        yield {"type": f"{prefix}.completed", "b64_json": one, "usage": _PICTURES_COST}


def embedded(body: Mapping[str, Any]) -> dict[str, Any]:
    """Vectors of texts."""
    told = body.get("input")
    texts: Sequence[Any] = told if isinstance(told, list) else [told]
    length = int(body.get("dimensions") or 4)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [float(zlib.crc32(f"{text}{number}".encode()) % 7) for number in range(length)],
        }
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _pictures(body: Mapping[str, Any]) -> list[str]:
    count = int(body.get("n") or 1)
    if told_by(body).endswith("words"):
        return [_NO_PICTURE] * count
    return [picture(_shade(body) + number) for number in range(count)]


def _shade(body: Mapping[str, Any]) -> int:
    return zlib.crc32(told_by(body).encode())
