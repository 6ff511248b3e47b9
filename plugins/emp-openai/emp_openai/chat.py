"""Chat completions: always streamed, so that closing the connection stops them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emp_core.connectors.context import JobContext
from emp_core.errors import ConnectionLost, InvalidJob
from emp_core.jobs.outcomes import JobResult
from emp_openai.completion import Completion, json_in
from emp_openai.payloads import Chat
from emp_openai.pictures import Attached, picture_of, save_picture
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]

_PATH = "/chat/completions"


async def run(account: "Account", task: Chat, model: str, context: JobContext) -> JobResult:
    """Complete a chat.

    Raises:
        ContentRefused: the model refuses, or a filter took the answer.
        ConnectionLost, NotRepeated: the answer has no end: no ``finish_reason``.
        ConnectorError: what the server says.
    """
    given = {**await context.replace_inputs(task.body(), Attached().as_data_url), "model": model}
    options = given.get("stream_options")
    with_usage = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    try:
        completion = await _ask(account, task, {**given, "stream_options": with_usage}, context)
    except InvalidJob as error:
        if "stream_options" not in error.message:
            raise
        completion = await _ask(account, task, given, context)
    data = completion.as_dict()
    if "response_format" in given:
        data["json"] = json_in(completion.text)
    pictures = enumerate(completion.pictures)
    artifacts = [await save_picture(picture, index, context, account.endpoint) for index, picture in pictures]
    if artifacts:
        data["images"] = [artifact.url for artifact in artifacts]
    return JobResult(data=data, artifacts=tuple(artifacts), usage=usage_of(completion.usage, model, account.prices))


async def _ask(account: "Account", task: Chat, body: Mapping[str, Any], context: JobContext) -> Completion:
    completion = Completion()
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    await context.progress(0.0, f"waiting for {body['model']}")
    async with account.post(_PATH, task, str(body["model"]), context, json={**body, "stream": True}) as answer:
        if not answer.is_stream:
            if piece := completion.take(await answer.whole()):
                await context.text(piece)
        else:
            try:
                async for event in answer.events():
                    if piece := completion.take(event):
                        await context.text(piece)
                    known = isinstance(most, int) and most > 0
                    done = min(1.0, completion.pieces / most) if known else 0.0
                    await context.progress(done, completion.stage)
            except ConnectionLost as error:
                if not completion.is_whole or completion.answers < _answers_asked_for(body):
                    raise
                context.log.info("the connection broke after the answer's last word", error=error.message)
        if not completion.is_whole:
            raise account.broke_off(f"POST {_PATH}", said=completion.text[-200:])
        completion.prove_content(account.endpoint, str(body["model"]))
        for picture in completion.pictures:
            picture_of(picture, account.endpoint)
    return completion


def _answers_asked_for(body: Mapping[str, Any]) -> int:
    return count if isinstance(count := body.get("n"), int) else 1
