"""Pictures from texts and from pictures; what is painted so far comes as previews."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field

from emp_core.connectors.context import JobContext, Preview
from emp_core.connectors.streams import parsed
from emp_core.errors import InvalidJob, JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_openai.errors import error_of_event
from emp_openai.payloads import Edit, Task
from emp_openai.pictures import picture_of, save_picture
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["edit", "generate"]

_PATH = "/images/generations"
_EDITS = "/images/edits"
_ACCEPT = ("image/*",)
_OLD_MODELS = "dall-e"
"""Those answer with addresses unless they are asked not to; the others know no other answer than base64."""


async def generate(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Paint.

    Raises:
        ContentRefused: the prompt is refused.
        JobFailed: the answer has no picture.
        ConnectorError: what the server says.
    """
    body: dict[str, Any] = {**task.body(), "model": model}
    if model.startswith(_OLD_MODELS):
        body.setdefault("response_format", "b64_json")
    elif body.get("partial_images"):
        body["stream"] = True
    return await _painted(account, task, model, context, _PATH, json=body)


async def edit(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Paint over pictures. Raises as `generate` does."""
    assert isinstance(task, Edit)
    body: dict[str, Any] = {**task.body(), "model": model}
    pictures = body.pop("image")
    mask = body.pop("mask", None)
    if model.startswith(_OLD_MODELS):
        body.setdefault("response_format", "b64_json")
    elif body.get("partial_images"):
        body["stream"] = True
    several = pictures if isinstance(pictures, Sequence) and not isinstance(pictures, str) else (pictures,)
    field_name = "image[]" if len(several) > 1 else "image"
    files = [(field_name, await _file(one, f"image-{index}", context)) for index, one in enumerate(several)]
    if mask is not None:
        files.append(("mask", await _file(mask, "mask", context)))
    form = httpx.Request(
        "POST", account.base_url + _EDITS, data={name: _field(value) for name, value in body.items()}, files=files
    )
    return await _painted(
        account,
        task,
        model,
        context,
        _EDITS,
        content=form.read(),
        headers={"content-type": form.headers["content-type"]},
    )


async def _painted(
    account: "Account", task: Task, model: str, context: JobContext, path: str, **request: Any
) -> JobResult:
    doing = f"POST {path}"
    painting = _Painting(doing)
    expected = task.others.get("partial_images", 0)
    await context.progress(0.0, f"waiting for {model}")
    async with account.post(path, task, context, **request) as answer:
        if answer.is_stream:
            async for event in answer.events():
                partial = painting.take(parsed(event.data, account.endpoint), account)
                if partial is not None:
                    number = len(painting.partial)
                    known = isinstance(expected, int) and expected > 0
                    done = min(0.95, number / (expected + 1)) if known else 0.0
                    await context.progress(done, f"picture {number} of the way", Preview(*partial))
            if not painting.pictures:
                raise account.broke_off(doing)
        else:
            told = parsed((await answer.body()).decode("utf-8", "replace"), account.endpoint)
            painting.take_whole(told, account)
        # Inside: what is no picture has been paid for all the same.
        for picture in painting.pictures:
            picture_of(picture, account.endpoint)
    artifacts = [
        await save_picture(picture, index, context, account.endpoint) for index, picture in enumerate(painting.pictures)
    ]
    data: dict[str, Any] = {"images": [artifact.url for artifact in artifacts]}
    if painting.revised:
        data["revised_prompts"] = painting.revised
    return JobResult(data=data, artifacts=tuple(artifacts), usage=usage_of(painting.usage, model, account.prices))


@define
class _Painting:
    """Pictures as they come.

    Attributes:
        pictures: finished ones, in base64.
        partial: how far those are that are not.
    """

    doing: str
    pictures: list[str] = field(factory=list)
    partial: list[int] = field(factory=list)
    revised: list[str] = field(factory=list)
    usage: Any = None

    def take(self, event: Any, account: "Account") -> tuple[bytes, str] | None:
        """Take an event; gives the picture of one that is on its way."""
        if not isinstance(event, Mapping):
            raise JobFailed(f"{account.endpoint} sent an event that is no object", details={"reason": "garbage"})
        kind = str(event.get("type") or "")
        if kind == "error" or (not kind and event.get("error")):
            told = event if event.get("error") else {"error": event}
            raise error_of_event(told, endpoint=account.endpoint, doing=self.doing)
        picture = event.get("b64_json")
        if kind.endswith(".partial_image") and isinstance(picture, str):
            self.partial.append(len(self.partial))
            return picture_of(picture, account.endpoint)
        if kind.endswith(".completed") and isinstance(picture, str):
            self.pictures.append(picture)
            self.usage = event.get("usage") or self.usage
        return None

    def take_whole(self, told: Any, account: "Account") -> None:
        """Take an answer that came in one piece."""
        items = told.get("data") if isinstance(told, Mapping) else None
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping) and isinstance(item.get("b64_json"), str):
                self.pictures.append(item["b64_json"])
                self.revised += [item["revised_prompt"]] if isinstance(item.get("revised_prompt"), str) else []
        if not self.pictures:
            raise JobFailed(
                f"{account.endpoint} answered {self.doing} without a picture in base64",
                hint="for models that answer with addresses, give response_format: b64_json",
                details={"reason": "no_picture"},
            )
        self.usage = told.get("usage")


async def _file(picture: Any, name: str, context: JobContext) -> tuple[str, bytes, str]:
    if isinstance(picture, str):
        try:
            data, media_type = picture_of(picture, "the job")
        except JobFailed as error:
            raise InvalidJob(f"the job's {name} is no picture in base64", details={"field": name}) from error
        return f"{name}.{media_type.rpartition('/')[2]}", data, media_type
    file = await context.fetch_input(picture, accept=_ACCEPT)
    return file.name, await file.read(), file.media_type


def _field(value: Any) -> str:
    """A value as a form's field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
