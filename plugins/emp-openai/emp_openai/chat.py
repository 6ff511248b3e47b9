"""Chat completions: always streamed, so that closing the connection stops them."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

from emp_core.connectors.context import JobContext
from emp_core.connectors.streams import parsed
from emp_core.errors import ContentRefused, InvalidJob, JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_openai.errors import error_of_event
from emp_openai.payloads import Task
from emp_openai.pictures import as_data_url
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]

_PATH = "/chat/completions"
_DOING = f"POST {_PATH}"


async def run(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Complete a chat.

    Raises:
        ContentRefused: the model refuses, or a filter took the answer.
        ConnectionLost: the answer has no end: no ``finish_reason``.
        ConnectorError: what the server says.
    """
    body = {**await context.replace_inputs(task.body(), as_data_url), "model": model}
    try:
        answer = await _ask(account, task, {**body, "stream_options": {"include_usage": True}}, context)
    except InvalidJob as error:
        if "stream_options" not in error.message:
            raise
        answer = await _ask(account, task, body, context)
    return answer.result(account, model, wants_json="response_format" in body)


async def _ask(account: "Account", task: Task, body: Mapping[str, Any], context: JobContext) -> "_Completion":
    completion = _Completion()
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    await context.progress(0.0, f"waiting for {body['model']}")
    async with account.post(_PATH, task, context, json={**body, "stream": True}) as answer:
        if not answer.is_stream:
            completion.take(parsed((await answer.body()).decode("utf-8", "replace"), account.endpoint), account)
            completion.prove(account)
            await context.text(completion.text)
            return completion
        async for event in answer.events():
            piece = completion.take(parsed(event.data, account.endpoint), account)
            if piece:
                await context.text(piece)
            known = isinstance(most, int) and most > 0
            done = min(1.0, completion.pieces / most) if known else 0.0
            await context.progress(done, f"{completion.pieces} tokens")
        completion.prove(account)
    return completion


@define
class _Choice:
    text: list[str] = field(factory=list)
    thinking: list[str] = field(factory=list)
    refusal: list[str] = field(factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(factory=dict)
    logprobs: list[Any] = field(factory=list)
    finish_reason: str | None = None

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
class _Completion:
    """A completion, put together from its chunks, or from its one whole answer."""

    pieces: int = 0
    id: str = ""
    choices: dict[int, _Choice] = field(factory=dict)
    usage: Any = None

    def take(self, chunk: Any, account: "Account") -> str:
        """Add a chunk; gives the new text of the first choice."""
        if not isinstance(chunk, Mapping):
            raise JobFailed(f"{account.endpoint} sent a chunk that is no object", details={"reason": "garbage"})
        if chunk.get("error"):
            raise error_of_event(chunk, endpoint=account.endpoint, doing=_DOING)
        self.id = str(chunk.get("id") or self.id)
        self.usage = chunk.get("usage") or self.usage
        new = ""
        choices = chunk.get("choices")
        for told in choices if isinstance(choices, list) else ():
            if not isinstance(told, Mapping):
                continue
            index = told.get("index")
            index = index if isinstance(index, int) else 0
            choice = self.choices.setdefault(index, _Choice())
            delta = told.get("delta", told.get("message"))
            piece = self._add(choice, delta if isinstance(delta, Mapping) else {})
            if isinstance(logprobs := told.get("logprobs"), Mapping) and isinstance(logprobs.get("content"), list):
                choice.logprobs += logprobs["content"]
            if told.get("finish_reason"):
                choice.finish_reason = str(told["finish_reason"])
            if index == 0:
                new += piece
        return new

    def _add(self, choice: _Choice, delta: Mapping[str, Any]) -> str:
        piece = delta.get("content")
        piece = piece if isinstance(piece, str) else ""
        if piece or delta.get("tool_calls") or delta.get("reasoning_content") or delta.get("reasoning"):
            self.pieces += 1
        choice.text.append(piece)
        for kept, names in ((choice.thinking, ("reasoning_content", "reasoning")), (choice.refusal, ("refusal",))):
            kept.extend(str(delta[name]) for name in names if isinstance(delta.get(name), str))
        calls = delta.get("tool_calls")
        for place, told in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(told, Mapping):
                index = told.get("index")
                _add_call(choice.tool_calls, index if isinstance(index, int) else place, told)
        return piece

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(self.choices[0].text) if 0 in self.choices else ""

    def prove(self, account: "Account") -> None:
        """Raises ConnectionLost unless every choice came to its end: ``[DONE]`` alone says nothing."""
        if not self.choices or any(choice.finish_reason is None for choice in self.choices.values()):
            raise account.broke_off(_DOING, said=self.text[-200:])

    def result(self, account: "Account", model: str, *, wants_json: bool) -> JobResult:
        """The result. Raises ContentRefused: there is no answer but a refusal, or a filter took it."""
        for choice in self.choices.values():
            refusal = "".join(choice.refusal)
            if refusal or choice.finish_reason == "content_filter":
                raise ContentRefused(
                    f"{account.endpoint} refuses: {refusal or 'its content filter took the answer'}"[:1000],
                    details={"finish_reason": choice.finish_reason, "model": model},
                )
        first, *others = (choice.as_dict() for _, choice in sorted(self.choices.items()))
        data: dict[str, Any] = {"id": self.id, **first}
        if others:
            data["choices"] = [first, *others]
        if wants_json:
            try:
                data["json"] = json.loads(first["text"])
            except (ValueError, RecursionError):
                data["json"] = None  # cut by its length, or no JSON at all: the text is there, and it was paid for
        return JobResult(data=data, usage=usage_of(self.usage, model, account.prices))


def _add_call(calls: dict[int, dict[str, Any]], index: int, told: Mapping[str, Any]) -> None:
    """Add a piece of a tool call: names come once, arguments in pieces."""
    call = calls.setdefault(index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = told.get("id") or call["id"]
    function = told.get("function")
    if isinstance(function, Mapping):
        call["function"]["name"] = function.get("name") or call["function"]["name"]
        arguments = function.get("arguments")
        call["function"]["arguments"] += arguments if isinstance(arguments, str) else ""
