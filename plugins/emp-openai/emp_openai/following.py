"""`Following`: a response as far as it is known, by the events of the stream that began it, or by asking for it."""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import httpx
from attrs import define, field

from emp_core.connectors.context import JobContext
from emp_core.errors import ConnectionLost, EmpError, InvalidJob, JobFailed, ServiceBusy, ServiceUnavailable
from emp_openai.answer import event_texts, is_stream, object_in
from emp_openai.pictures import preview_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["PATH", "Following", "Gone"]

PATH = "/responses"
_PREVIEW = "response.image_generation_call.partial_image"
_FINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})
_CANCEL_LIMIT_S = 5.0
_LOOKS_IN_VAIN = 5
_UNKNOWN_LOOKS = 3
"""Right after it was begun, not every part of a large service knows a response."""


class Gone(InvalidJob):
    """The server does not know the response any more, or never kept it."""


@define
class Following:
    """A response as far as it is known.

    Attributes:
        account: where it is.
        id: the server's; empty until it was told.
        in_background: whether it goes on without our connection.
        response: as it was told last.
        known: set once its id is known.
    """

    account: "Account"
    context: JobContext
    id: str = ""
    in_background: bool = False
    response: Mapping[str, Any] = field(factory=dict)
    known: anyio.Event = field(factory=anyio.Event)
    _last: int | None = None
    _text: list[str] = field(factory=list)
    _news_at: float = field(factory=anyio.current_time)

    @property
    def is_final(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.status in _FINAL

    @property
    def status(self) -> str:
        """What the server calls its state."""
        return str(self.response.get("status") or "")

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def cost_something(self) -> bool:
        """Whether the model has begun to answer, or the server counts tokens."""
        usage = self.response.get("usage")
        counted = isinstance(usage, Mapping) and bool(usage.get("total_tokens"))
        return bool(self._text or self.response.get("output")) or counted

    async def take(self, event: Mapping[str, Any], *, background: bool) -> None:
        """Take an event.

        Args:
            background: whether the response was asked to go on without us.
        """
        self._news_at = anyio.current_time()
        number = event.get("sequence_number")
        self._last = number if isinstance(number, int) else self._last
        if isinstance(event.get("response"), Mapping):
            self.take_response(event["response"], background=background)
        elif event.get("type") == "response.output_text.delta" and isinstance(event.get("delta"), str):
            self._text.append(event["delta"])
            await self.context.text(event["delta"])
            await self.context.progress(0.0, f"{len(self._text)} tokens")
        elif event.get("type") == _PREVIEW and isinstance(event.get("partial_image_b64"), str):
            preview = preview_of(event["partial_image_b64"], self.account.endpoint)
            await self.context.progress(0.0, "a preview", preview)

    def take_response(self, told: Mapping[str, Any], *, background: bool) -> None:
        """Take the response as it is now. Raises JobFailed: it is none."""
        if not isinstance(told.get("id"), str):
            raise JobFailed(f"{self.account.endpoint} answered with no response", details={"reason": "garbage"})
        if told.get("status") != self.response.get("status"):
            self._news_at = anyio.current_time()
        self.response = told
        self.id = self.id or told["id"]
        self.known.set()
        # Servers that know no background say so, or leave it out.
        self.in_background = background and told.get("background") is not False and not self.is_final

    async def to_its_end(self) -> None:
        """Follow a background response until its end, by its events where they can be had, else by looking now and then.

        Raises:
            Gone: the server does not know it.
            JobFailed: it was not begun for so long that it never will; or
            ServiceUnavailable, ServiceBusy, JobFailed: the server cannot be asked; another attempt can take it over.
        """
        in_vain = unknown = 0
        while not self.is_final:
            try:
                if not self.response:
                    await self.look()  # it may be over
                    continue
                await self._follow()
                in_vain = unknown = 0
            except Gone:
                unknown += 1
                if unknown >= _UNKNOWN_LOOKS:
                    raise
            except (ServiceUnavailable, ServiceBusy, JobFailed):
                in_vain += 1
                if in_vain >= _LOOKS_IN_VAIN:
                    raise
            if not self.is_final:
                await self._give_up_if_stuck()
                await anyio.sleep(self.account.settings.poll_s)

    async def _follow(self) -> None:
        """Take what can be had of it now: its events, or, where those cannot be had, how it is."""
        after = {} if self._last is None else {"starting_after": str(self._last)}
        silence_s = self.account.settings.silence_s
        with contextlib.suppress(ConnectionLost):  # a long silence is none: models think
            async with self.account.stream(
                "GET", self._path, params={"stream": "true", **after}, silence_s=silence_s, accept=(400, 404)
            ) as response:
                if response.status_code == 404:
                    raise self._gone()
                if response.is_success and is_stream(response) and await self._take_events(response):
                    return
        await self.look()  # it was not begun as a stream, or the stream failed

    async def look(self) -> None:
        """Ask how it is. Raises Gone: the server does not know it; ConnectorError: it cannot be asked."""
        reply = await self.account.request("GET", self._path, accept=(404,))
        if reply.status == 404:
            raise self._gone()
        self.take_response(object_in(reply.text, self.account.endpoint), background=True)

    def _gone(self) -> Gone:
        return Gone(
            f"{self.account.endpoint} does not know the response {self.id}",
            details={"response_id": self.id, "endpoint": self.account.endpoint},
        )

    async def _take_events(self, response: httpx.Response) -> bool:
        """Take the events of a stream; whether that went well."""
        async for text in event_texts(self.account, response):
            event = object_in(text, self.account.endpoint)
            if event.get("type") == "error":
                return False
            await self.take(event, background=True)
            if self.is_final:
                break
        return True

    @property
    def _path(self) -> str:
        return f"{PATH}/{quote(self.id, safe='')}"

    async def _give_up_if_stuck(self) -> None:
        """A response whose first listener left too early may stay queued for ever."""
        silence_s = self.account.settings.silence_s
        if self.status != "queued" or anyio.current_time() - self._news_at < silence_s:
            return
        await self.cancel()
        raise JobFailed(
            f"the response {self.id} was queued for {silence_s:g} s, and nothing came of it",
            details={"response_id": self.id, "reason": "stuck", "endpoint": self.account.endpoint},
        )

    async def cancel(self) -> None:
        """Have the server stop it, unless it ends with our connection, has ended, or another worker is to take it over."""
        if not self.in_background or self.is_final or self.context.is_handed_on:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_LIMIT_S):
            try:
                # Those that do not know it have stopped it with our connection.
                await self.account.request("POST", f"{self._path}/cancel", silence_s=_CANCEL_LIMIT_S, accept=(404,))
            except EmpError as error:
                self.context.log.warning("a response could not be cancelled", response_id=self.id, error=error.message)
