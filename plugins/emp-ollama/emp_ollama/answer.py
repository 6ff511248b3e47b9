"""An answer, put together from its frames."""

import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from emp_core.errors import InvalidJob, JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_ollama.schemas import problems_of

__all__ = ["Answer", "Piece"]

_NANOSECONDS = 1e6


@define
class Piece:
    """What one frame added."""

    text: str = ""
    thinking: str = ""


@define
class Answer:
    """The frames of one answer of generate or chat, as far as they came.

    Attributes:
        model: as it was asked for.
        frames: how many came. Each is about a token; only the last one tells the true count.
        final: the last frame, the one with ``done``; None while it has not come. Without it there is no success.
    """

    model: str
    frames: int = 0
    final: Mapping[str, Any] | None = None
    _text: list[str] = field(factory=list)
    _thinking: list[str] = field(factory=list)
    _tool_calls: list[Any] = field(factory=list)
    _logprobs: list[Any] = field(factory=list)

    def take(self, frame: Mapping[str, Any]) -> Piece:
        """Add a frame."""
        self.frames += 1
        message = frame.get("message")
        said: Mapping[str, Any] = message if isinstance(message, Mapping) else frame
        piece = Piece(
            _text_of(said.get("content") if said is message else said.get("response")), _text_of(said.get("thinking"))
        )
        self._text.append(piece.text)
        self._thinking.append(piece.thinking)
        for kept, told in ((self._tool_calls, said.get("tool_calls")), (self._logprobs, frame.get("logprobs"))):
            kept.extend(told if isinstance(told, list) else ())
        if frame.get("done") is True:
            self.final = frame
        return piece

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    async def result(self, *, task: str, wanted: Any, repeats: bool) -> JobResult:
        """The whole answer, proven.

        Args:
            task: ``generate`` or ``chat``.
            wanted: the ``format`` that was asked for.
            repeats: whether the same request gives the same answer.

        Raises:
            JobFailed: it never came to its end, or is not of the format.
            InvalidJob: the same request would give the same answer again.
        """
        if self.final is None:
            raise self._wrong(
                "the answer ended without its last frame: Ollama gives up when a model repeats itself",
                reason="incomplete",
                again=not repeats,
            )
        finish_reason = str(self.final.get("done_reason") or "stop")
        data: dict[str, Any] = {"model": self.model, "task": task, "text": self.text, "finish_reason": finish_reason}
        if thinking := "".join(self._thinking):
            data["thinking"] = thinking
        if self._tool_calls:
            data["tool_calls"] = self._tool_calls
        if self._logprobs:
            data["logprobs"] = self._logprobs
        if wanted is not None and not self._tool_calls and finish_reason not in ("load", "unload"):
            data["json"] = await self._as_wanted(wanted, finish_reason, again=not repeats)
        return JobResult(data=data, usage=usage_of(self.final))

    async def _as_wanted(self, wanted: Any, finish_reason: str, *, again: bool) -> Any:
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            if finish_reason == "length":
                raise InvalidJob(
                    "the answer was cut before its JSON was whole",
                    hint="raise num_predict, or the worker's num_ctx",
                    details={"reason": "cut", "finish_reason": finish_reason},
                ) from error
            raise self._wrong(f"the answer is no JSON: {error}", reason="format", again=again) from error
        if isinstance(wanted, Mapping) and (problems := await problems_of(value, wanted)):
            raise self._wrong(
                f"the answer does not fit the schema: {'; '.join(problems)}", reason="format", again=again
            )
        return value

    def _wrong(self, message: str, *, reason: str, again: bool) -> JobFailed | InvalidJob:
        kind = JobFailed if again else InvalidJob
        return kind(message, details={"reason": reason, "model": self.model, "said": self.text[-200:]})


def usage_of(final: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts and durations, in ms; what Ollama leaves out is 0."""
    prompt, answer = _whole(final.get("prompt_eval_count")), _whole(final.get("eval_count"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "total_ms": _ms(final.get("total_duration")),
        "loading_ms": _ms(final.get("load_duration")),
        "prompt_ms": _ms(final.get("prompt_eval_duration")),
        "completion_ms": _ms(final.get("eval_duration")),
    }


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _ms(nanoseconds: Any) -> float:
    return round(_whole(nanoseconds) / _NANOSECONDS, 3)
