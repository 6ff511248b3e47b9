"""Pictures from texts and from pictures; what is painted so far comes as previews."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field

from emp_core.connectors.context import JobContext
from emp_core.errors import InvalidJob, JobFailed
from emp_core.jobs.inputs import InputRef
from emp_core.jobs.outcomes import JobResult
from emp_openai.payloads import Edit, Image
from emp_openai.pictures import Attached, picture_of, preview_of, save_picture
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["edit", "generate"]

_PATH = "/images/generations"
_EDITS = "/images/edits"
_ACCEPT = ("image/*",)
_OLD_MODELS = "dall-e"
"""Those answer with addresses unless they are asked not to; the others know no other answer than base64."""


async def generate(account: "Account", task: Image, model: str, context: JobContext) -> JobResult:
    """Paint.

    Raises:
        ContentRefused: the prompt is refused.
        JobFailed: the answer has no picture.
        ConnectorError: what the server says.
    """
    return await _painted(account, task, model, context, _PATH, json=_body(task, model))


async def edit(account: "Account", task: Edit, model: str, context: JobContext) -> JobResult:
    """Paint over pictures. Raises as `generate` does."""
    body = _body(task, model)
    pictures = body.pop("image")
    mask = body.pop("mask", None)
    several = pictures if isinstance(pictures, Sequence) and not isinstance(pictures, str) else (pictures,)
    field_name = "image[]" if len(several) > 1 else "image"
    attached = Attached()
    files = [(field_name, await _file(one, f"image-{index}", context, attached)) for index, one in enumerate(several)]
    if mask is not None:
        files.append(("mask", await _file(mask, "mask", context, attached)))
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


def _body(task: Image | Edit, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {**task.body(), "model": model}
    if model.startswith(_OLD_MODELS):
        body.setdefault("response_format", "b64_json")
    elif body.get("partial_images"):
        body["stream"] = True
    return body


async def _painted(
    account: "Account", task: Image | Edit, model: str, context: JobContext, path: str, **request: Any
) -> JobResult:
    doing = f"POST {path}"
    painting = _Painting()
    expected = task.others.get("partial_images", 0)
    wanted = task.others.get("n")
    wanted = wanted if isinstance(wanted, int) else 1
    await context.progress(0.0, f"waiting for {model}")
    async with account.post(path, task, model, context, **request) as answer:
        if answer.is_stream:
            async for event in answer.events():
                if (partial := painting.take(event)) is not None:
                    known = isinstance(expected, int) and expected > 0
                    done = min(0.95, painting.previews / (expected + 1)) if known else 0.0
                    preview = preview_of(partial, account.endpoint)
                    await context.progress(done, f"preview {painting.previews}", preview)
                if len(painting.pictures) >= wanted:
                    break  # whatever becomes of the connection now
            if not painting.pictures:
                raise account.broke_off(doing)
        else:
            painting.take_whole(await answer.whole())
            most = account.max_answer_bytes
            painting.pictures = [await _fetched(picture, context, most) for picture in painting.pictures]
            if not painting.pictures:
                said = f"{account.endpoint} answered {doing} without a picture"
                raise JobFailed(said, details={"reason": "no_picture"})
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
        previews: how many came of those that are not.
    """

    pictures: list[str] = field(factory=list)
    previews: int = 0
    revised: list[str] = field(factory=list)
    usage: Any = None

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Take an event; gives the picture of one that is on its way, in base64."""
        kind, picture = str(event.get("type") or ""), event.get("b64_json")
        if not isinstance(picture, str):
            return None
        if kind.endswith(".partial_image"):
            self.previews += 1
            return picture
        if kind.endswith(".completed"):
            self.pictures.append(picture)
            self.usage = event.get("usage") or self.usage
        return None

    def take_whole(self, told: Mapping[str, Any]) -> None:
        """Take an answer that came in one piece: pictures in base64, or where they are."""
        items = told.get("data")
        for item in items if isinstance(items, list) else ():
            picture = (item.get("b64_json") or item.get("url")) if isinstance(item, Mapping) else None
            if isinstance(picture, str):
                self.pictures.append(picture)
                self.revised += [item["revised_prompt"]] if isinstance(item.get("revised_prompt"), str) else []
        self.usage = told.get("usage")


async def _fetched(picture: str, context: JobContext, max_bytes: int) -> str:
    """A picture in base64. One that the server only tells the address of is fetched as files of jobs are: not from anywhere."""
    if not picture.startswith(("http://", "https://")):
        return picture
    file = await context.fetch_input(InputRef("url", picture, max_bytes=max_bytes), accept=_ACCEPT)
    return base64.b64encode(await file.read()).decode()


async def _file(picture: Any, name: str, context: JobContext, attached: Attached) -> tuple[str, bytes, str]:
    if isinstance(picture, str):
        try:
            data, media_type = picture_of(picture, "the job")
        except JobFailed as error:
            raise InvalidJob(f"the job's {name} is no picture in base64", details={"field": name}) from error
        return f"{name}.{media_type.rpartition('/')[2]}", data, media_type
    file = await context.fetch_input(picture, accept=_ACCEPT)
    return file.name, await attached.read(file), file.media_type


def _field(value: Any) -> str:
    """A value as a form's field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
