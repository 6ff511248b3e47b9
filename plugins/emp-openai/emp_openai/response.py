"""What a response is when it has come to its end: a result, or a failure."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emp_core.errors import ConnectorError, ContentRefused, JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_openai.completion import json_in
from emp_openai.errors import error_of_event
from emp_openai.following import PATH, Following
from emp_openai.pictures import save_picture
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_core.jobs.model import Artifact

__all__ = ["failure_of", "result_of"]

_JSON_FORMATS = ("json_schema", "json_object")


def failure_of(following: Following) -> ConnectorError | None:
    """Why a response that has ended is no answer; None: it is one."""
    response, endpoint = following.response, following.account.endpoint
    details = {"response_id": following.id}
    if following.status == "failed":
        return error_of_event(response, endpoint=endpoint, doing=f"POST {PATH}")
    if following.status == "cancelled":
        return JobFailed("somebody cancelled the response", details={**details, "reason": "cancelled_elsewhere"})
    if following.status == "incomplete" and _reason(response) == "content_filter":
        return ContentRefused(f"{endpoint}'s content filter took the answer", details=details)
    if refusals := [str(part.get("refusal")) for part in _parts(response) if part.get("type") == "refusal"]:
        return ContentRefused(f"{endpoint} refuses: {' '.join(refusals)}"[:1000], details=details)
    return None


async def result_of(following: Following, model: str) -> JobResult:
    """The result of a response that has ended well. Its pictures are stored, and the rest of its text is put out.

    Raises:
        JobFailed: a picture is none.
    """
    response, account = following.response, following.account
    text = "".join(str(part.get("text") or "") for part in _parts(response) if part.get("type") == "output_text")
    if text.startswith(following.text) and (rest := text[len(following.text) :]):
        await following.context.text(rest)  # it came in one piece, or its end did
    artifacts: list[Artifact] = []
    output: list[Mapping[str, Any]] = []
    for item in _items(response):
        picture = item.get("result")
        if item.get("type") == "image_generation_call" and isinstance(picture, str):
            artifacts.append(await save_picture(picture, len(artifacts), following.context, account.endpoint))
            output.append({name: value for name, value in item.items() if name != "result"})
        else:
            output.append(item)
    data: dict[str, Any] = {"id": following.id, "text": text, "finish_reason": _finish_reason(response)}
    if thinking := "".join(_thinking(response)):
        data["thinking"] = thinking
    if _wants_json(response):
        data["json"] = json_in(text)
    data["output"] = output
    usage = usage_of(response.get("usage"), model, account.prices)
    return JobResult(data=data, artifacts=tuple(artifacts), usage=usage)


def _finish_reason(response: Mapping[str, Any]) -> str:
    """In the words of chat completions."""
    if response.get("status") == "completed":
        return "stop"
    reason = _reason(response)
    return "length" if reason == "max_output_tokens" else reason or str(response.get("status"))


def _reason(response: Mapping[str, Any]) -> str | None:
    incomplete = response.get("incomplete_details")
    reason = incomplete.get("reason") if isinstance(incomplete, Mapping) else None
    return reason if isinstance(reason, str) else None


def _items(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    output = response.get("output")
    yield from (item for item in (output if isinstance(output, list) else ()) if isinstance(item, Mapping))


def _parts(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for item in _items(response):
        if item.get("type") == "message" and isinstance(item.get("content"), list):
            yield from (part for part in item["content"] if isinstance(part, Mapping))


def _thinking(response: Mapping[str, Any]) -> Iterator[str]:
    for item in _items(response):
        for name in ("summary", "content"):
            parts = item.get(name) if item.get("type") == "reasoning" else None
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                    yield part["text"]


def _wants_json(response: Mapping[str, Any]) -> bool:
    text = response.get("text")
    told = text.get("format") if isinstance(text, Mapping) else None
    return isinstance(told, Mapping) and told.get("type") in _JSON_FORMATS
