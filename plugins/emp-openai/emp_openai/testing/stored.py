"""`Stored`: a response of the fake server, which goes on whether anybody listens or not."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
from attrs import define, field

from emp_openai.testing.talk import told_by, words_of

__all__ = ["FINAL", "Stored"]

FINAL = ("completed", "failed", "incomplete", "cancelled")
_FAILS = ("fail", "collapse")
_REFUSAL = {"type": "refusal", "refusal": "I cannot help with that."}


@define(eq=False)
class Stored:
    """A response, its events, and who waits for more of them.

    Attributes:
        scope: cancel it to stop the writing.
    """

    id: str
    response: dict[str, Any]
    scope: anyio.CancelScope | None = None
    events: list[dict[str, Any]] = field(factory=list)
    _grown: anyio.Event = field(factory=anyio.Event)

    @classmethod
    def begun(cls, name: str, body: Mapping[str, Any], *, background: bool) -> "Stored":
        """A response that was just asked for."""
        response = {"id": name, "object": "response", "model": body["model"], "output": []}
        status = "queued" if background else "in_progress"
        stored = cls(name, {**response, "status": status, "background": background})
        stored.add("response.created", response=dict(stored.response))
        return stored

    def add(self, kind: str, **facts: Any) -> None:
        """The next event."""
        self.events.append({"type": kind, "sequence_number": len(self.events), **facts})
        grown, self._grown = self._grown, anyio.Event()
        grown.set()

    async def follow(self, place: int) -> AsyncIterator[dict[str, Any]]:
        """Its events from a place on, as they come, until the last one."""
        while True:
            while place < len(self.events):
                yield self.events[place]
                place += 1
            if self.response["status"] in FINAL:
                return
            await self._grown.wait()

    async def write(self, body: Mapping[str, Any], pause: Callable[[], Any]) -> None:
        """Write it to its end; what it is told picks how it ends."""
        told = told_by(body)
        self.response["status"] = "in_progress"
        self.add("response.in_progress", response=dict(self.response))
        words = []
        for word in words_of(told):
            await pause()
            words.append(word)
            self.add("response.output_text.delta", output_index=0, content_index=0, delta=word)
        part = {"type": "output_text", "text": "".join(words), "annotations": []}
        content = [_REFUSAL if told.endswith("refuse") else part]
        item = {"type": "message", "role": "assistant", "status": "completed", "content": content}
        usage = {"input_tokens": len(told.split()), "output_tokens": len(words)}
        status = "failed" if told.endswith(_FAILS) else "incomplete" if told.endswith("unfinished") else "completed"
        self.response |= {
            "status": status,
            "output": [item] if words else [],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }
        if status == "failed":
            self.response["usage"] = None
            self.response["error"] = {"code": "server_error", "message": "The model failed"}
        if status == "incomplete":
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        self.add(f"response.{status}", response=dict(self.response))

    def cancel(self) -> None:
        """Stop writing."""
        if self.scope is not None:
            self.scope.cancel()
        self.response["status"] = "cancelled"
        self.add("response.cancelled", response=dict(self.response))
