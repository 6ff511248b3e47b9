"""Responses, in the background where the server can: its id is stored before anything else, so that the run outlives its worker.

A background response goes on when nobody listens. It can be asked for by its id, followed again from any event, and
cancelled. Servers that know no background answer as if they had not been asked for it; then a run that breaks off is lost.
"""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from attrs import define, field

from emp_core.connectors.context import JobContext
from emp_core.connectors.streams import parsed, server_sent_events
from emp_core.errors import (
    ConnectionLost,
    ContentRefused,
    EmpError,
    InvalidJob,
    JobFailed,
    NotRepeated,
    ServiceBusy,
    ServiceUnavailable,
)
from emp_core.jobs.outcomes import JobResult
from emp_openai.errors import error_of_event
from emp_openai.payloads import Respond, Task
from emp_openai.pictures import as_data_url, save_picture
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]

_PATH = "/responses"
_DOING = f"POST {_PATH}"
_FINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})
_CANCEL_LIMIT_S = 5.0
_LOOKS_IN_VAIN = 5


async def run(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Get a response; take over one that an earlier attempt began.

    Raises:
        ContentRefused: the model refuses, or a filter took the answer.
        NotRepeated: an earlier attempt's response is not there any more; the job may have been paid for.
        ConnectorError: what the server says.
    """
    assert isinstance(task, Respond)
    following = _Following(account, context)
    if context.service_job_id is not None:
        following.id = context.service_job_id
        context.log.info("an earlier attempt's response is taken over", response_id=following.id)
        try:
            await following.to_its_end()
        except _Gone as gone:
            if not account.may_resend(task):
                raise NotRepeated(
                    f"{gone.message}; an earlier attempt began it, and it may have been paid for",
                    hint="jobs with `resend` are begun again",
                    details=gone.details,
                ) from gone
            following = _Following(account, context)
    if not following.is_final:
        await _begin(account, task, model, following, context)
    return await following.result(model)


async def _begin(account: "Account", task: Respond, model: str, following: "_Following", context: JobContext) -> None:
    given = await context.replace_inputs(task.body(), as_data_url)
    body = {**given, "model": model, "stream": True}
    if task.background:
        body |= {"background": True, "store": True}
    await context.progress(0.0, f"waiting for {model}")
    try:
        async with account.post(_PATH, task, context, json=body) as answer:
            if answer.is_stream:
                try:
                    await following.take_all((event.data async for event in answer.events()), keep=task.background)
                except ConnectionLost:
                    if not following.outlives_us:
                        raise
                    context.log.info("the stream broke off; the response goes on", response_id=following.id)
            else:
                told = parsed((await answer.body()).decode("utf-8", "replace"), account.endpoint)
                await following.take_response(told, keep=task.background)
            if not following.is_final and not following.outlives_us:
                raise account.broke_off(_DOING, said=following.text[-200:])
        await following.to_its_end()
    except anyio.get_cancelled_exc_class():
        await following.cancel()
        raise


class _Gone(InvalidJob):
    """The server does not know the response any more."""


@define
class _Following:
    """A response as far as it is known.

    Attributes:
        id: the server's; empty until it was told.
        outlives_us: whether it goes on without our connection.
    """

    account: "Account"
    context: JobContext
    id: str = ""
    outlives_us: bool = False
    response: Mapping[str, Any] = field(factory=dict)
    _last: int | None = None
    _text: list[str] = field(factory=list)

    @property
    def is_final(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.response.get("status") in _FINAL

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    async def take_all(self, events: AsyncIterator[str], *, keep: bool) -> None:
        """Take events until the last one.

        Args:
            keep: whether the response goes on in the background, so that its id is worth keeping.
        """
        async for data in events:
            await self.take(parsed(data, self.account.endpoint), keep=keep)
            if self.is_final:
                return

    async def take(self, event: Any, *, keep: bool) -> None:
        """Take an event."""
        if not isinstance(event, Mapping):
            raise JobFailed(f"{self.account.endpoint} sent an event that is no object", details={"reason": "garbage"})
        kind = str(event.get("type") or "")
        number = event.get("sequence_number")
        self._last = number if isinstance(number, int) else self._last
        if kind == "error" or (not kind and event.get("error")):
            raise error_of_event(
                event if event.get("error") else {"error": event}, endpoint=self.account.endpoint, doing=_DOING
            )
        if isinstance(event.get("response"), Mapping):
            await self.take_response(event["response"], keep=keep)
        elif kind == "response.output_text.delta" and isinstance(event.get("delta"), str):
            self._text.append(event["delta"])
            await self.context.text(event["delta"])
            await self.context.progress(0.0, f"{len(self._text)} tokens")

    async def take_response(self, told: Any, *, keep: bool) -> None:
        """Take the response as it is now; its id is stored before anything else is done with it."""
        if not isinstance(told, Mapping) or not isinstance(told.get("id"), str):
            raise JobFailed(f"{self.account.endpoint} answered with no response", details={"reason": "garbage"})
        self.response = told
        if not self.id:
            self.id = told["id"]
            # Servers that know no background say so, or leave it out.
            self.outlives_us = keep and told.get("background") is not False and told.get("status") not in _FINAL
            if self.outlives_us:
                await self.context.checkpoint(self.id, secure=True)

    async def to_its_end(self) -> None:
        """Follow it until its end, by its events where they can be had, else by looking now and then."""
        in_vain = 0
        self.outlives_us = self.outlives_us or bool(self.id and not self.is_final)
        while not self.is_final:
            try:
                if not await self._follow():
                    await anyio.sleep(self.account.settings.poll_s)
                in_vain = 0
            except (ServiceUnavailable, ServiceBusy):
                in_vain += 1
                if in_vain >= _LOOKS_IN_VAIN:
                    raise  # the next attempt takes it over
                await anyio.sleep(self.account.settings.poll_s)

    async def _follow(self) -> bool:
        """Take what can be had of it now; whether that were events."""
        after = {} if self._last is None else {"starting_after": str(self._last)}
        path = f"{_PATH}/{self.id}"
        async with self.account.stream(
            "GET",
            path,
            params={"stream": "true", **after},
            silence_s=self.account.settings.silence_s,
            accept=(400, 404),
        ) as response:
            if response.status_code == 404:
                raise _Gone(
                    f"{self.account.endpoint} does not know the response {self.id} any more",
                    details={"response_id": self.id, "endpoint": self.account.endpoint},
                )
            if response.is_success and _is_stream(response):
                chunks = self.account.chunks_capped(response, self.account.max_answer_bytes)
                events = server_sent_events(chunks, silence_s=self.account.settings.silence_s)
                await self.take_all((one.data async for one in events if one.data.strip() != "[DONE]"), keep=True)
                return True
            if response.is_success:
                body = await self.account.read_capped(response, self.account.max_answer_bytes)
                await self.take_response(parsed(body.decode("utf-8", "replace"), self.account.endpoint), keep=True)
                return False
        # It was not begun as a stream: then it can only be looked at.
        await self.take_response(await self.account.request_json("GET", path), keep=True)
        return False

    async def cancel(self) -> None:
        """Have the server stop it, unless another worker is to take it over."""
        if not self.outlives_us or self.is_final or self.context.is_handed_on:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_LIMIT_S):
            try:
                await self.account.request("POST", f"{_PATH}/{self.id}/cancel", silence_s=_CANCEL_LIMIT_S)
            except EmpError as error:
                self.context.log.warning("a response could not be cancelled", response_id=self.id, error=error.message)

    async def result(self, model: str) -> JobResult:
        """The result, once it is final.

        Raises:
            ContentRefused, JobFailed, ConnectorError: it did not end well.
        """
        status = self.response.get("status")
        details = {"response_id": self.id, "model": model}
        if status == "failed":
            raise error_of_event(self.response, endpoint=self.account.endpoint, doing=_DOING)
        if status == "cancelled":
            raise JobFailed("somebody cancelled the response", details={**details, "reason": "cancelled_elsewhere"})
        incomplete = self.response.get("incomplete_details")
        reason = incomplete.get("reason") if isinstance(incomplete, Mapping) else None
        if status == "incomplete" and reason == "content_filter":
            raise ContentRefused(f"{self.account.endpoint}'s content filter took the answer", details=details)
        output = self.response.get("output")
        items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
        parts = [part for item in items for part in item.get("content") or () if isinstance(part, Mapping)]
        text = "".join(str(part.get("text") or "") for part in parts if part.get("type") == "output_text")
        refusals = [str(part.get("refusal")) for part in parts if part.get("type") == "refusal"]
        if refusals:
            raise ContentRefused(f"{self.account.endpoint} refuses: {' '.join(refusals)}"[:1000], details=details)
        finish_reason = "stop" if status == "completed" else "length" if reason == "max_output_tokens" else str(reason)
        artifacts = []
        kept = []
        for item in items:
            if item.get("type") == "image_generation_call" and isinstance(item.get("result"), str):
                artifacts.append(
                    await save_picture(item["result"], len(artifacts), self.context, self.account.endpoint)
                )
                item = {name: value for name, value in item.items() if name != "result"}
            kept.append(item)
        data = {"id": self.id, "text": text, "finish_reason": finish_reason, "output": kept}
        usage = usage_of(self.response.get("usage"), model, self.account.prices)
        return JobResult(data=data, artifacts=tuple(artifacts), usage=usage)


def _is_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("text/event-stream")
