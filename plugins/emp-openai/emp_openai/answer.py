"""`Answer`: an answer that began well, piece by piece or whole, and whether anything of it may have to be paid for."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from emp_core.connectors.context import JobContext
from emp_core.connectors.streams import parsed, server_sent_events
from emp_core.errors import ConnectionLost, ConnectorError, JobFailed
from emp_openai.errors import error_of_event

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["Answer", "event_texts", "is_stream", "object_in"]

_EVENT_STREAM = "text/event-stream"
_NO_ID = "an answer"
_LAST_WORD = "[DONE]"
_EVENT_BYTES = 64 * 2**20
_END_S = 0.2
"""How long a connection may take to end after the last word, so that it can be used again."""


class Answer:
    """An answer that began well.

    Before anything is done with its first piece, the job takes note of it, if another attempt has to know of it.

    Args:
        keep: whether the job takes note.

    Attributes:
        paid: whether it may have to be paid for: an event of it came, other than an error, or it came whole.
    """

    def __init__(
        self, account: "Account", response: httpx.Response, context: JobContext, *, doing: str, keep: bool
    ) -> None:
        self._account = account
        self._response = response
        self._context = context
        self._doing = doing
        self._keep = keep
        self.paid = False
        self._has_begun = False

    @property
    def is_stream(self) -> bool:
        """Whether it comes as events."""
        return is_stream(self._response)

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Its events.

        Raises:
            ConnectorError: one of them is an error; what that means.
            JobFailed: one of them is no JSON object.
            ConnectionLost: it broke off, or fell silent.
        """
        async for text in event_texts(self._account, self._response):
            try:
                event = object_in(text, self._account.endpoint)
            except JobFailed:
                self.paid = True
                raise
            if event.get("type") == "error" or ("type" not in event and event.get("error")):
                raise error_of_event(event, endpoint=self._account.endpoint, doing=self._doing)
            await self._came(event)
            yield event

    async def whole(self) -> Mapping[str, Any]:
        """All of it, as the one JSON object that it is. Raises as `events` does."""
        # The work was done when it began. A web page that something else put in its place cost nothing.
        self.paid = "json" in str(self._response.headers.get("content-type", "")).lower()
        silence_s = self._account.settings.silence_s
        try:
            with anyio.fail_after(silence_s):
                body = await self._account.read_capped(self._response, self._account.max_answer_bytes)
        except TimeoutError:
            said = f"{self._account.endpoint} did not end its answer to {self._doing} in {silence_s:g} s"
            raise ConnectionLost(said, details={"endpoint": self._account.endpoint}) from None
        told = object_in(body.decode("utf-8", "replace"), self._account.endpoint)
        # A response has a status, and its error is what became of it.
        if told.get("error") and "status" not in told:
            self.paid = False
            raise error_of_event(told, endpoint=self._account.endpoint, doing=self._doing)
        await self._came(told)
        return told

    async def _came(self, told: Mapping[str, Any]) -> None:
        if self._has_begun:
            return
        self.paid = self._has_begun = True
        if self._keep:
            response = told.get("response")
            run = (response if isinstance(response, Mapping) else told).get("id")
            await self._context.checkpoint(run if isinstance(run, str) and run else _NO_ID, secure=True)


def is_stream(response: httpx.Response) -> bool:
    """Whether an answer comes as events. Some servers answer at once, whatever they are asked."""
    return str(response.headers.get("content-type", "")).lower().startswith(_EVENT_STREAM)


async def event_texts(account: "Account", response: httpx.Response) -> AsyncIterator[str]:
    """What the events of an answer hold, up to ``[DONE]``: nothing comes after it, though not every server ends then.

    Raises:
        ConnectionLost, JobFailed: it broke off before, fell silent, or is too long.
    """
    most = account.max_answer_bytes
    chunks = account.chunks_capped(response, most)
    # A picture is one event: lines are longer than elsewhere.
    events = server_sent_events(chunks, silence_s=account.settings.silence_s, max_line_bytes=min(most, _EVENT_BYTES))
    async for event in events:
        if event.data.strip() == _LAST_WORD:
            break
        yield event.data
    else:
        return
    with anyio.move_on_after(_END_S), contextlib.suppress(ConnectorError):
        async for _ in events:
            pass


def object_in(text: str, endpoint: str) -> Mapping[str, Any]:
    """A JSON object. Raises JobFailed: it is none."""
    told = parsed(text, endpoint)
    if not isinstance(told, Mapping):
        raise JobFailed(f"{endpoint} sent {type(told).__name__}, where an object is due", details={"reason": "garbage"})
    return told
