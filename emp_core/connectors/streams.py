"""Answers that come bit by bit: lines, and server-sent events. Chunks of HTTP are neither: one may hold several, or half of one."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from attrs import frozen

from emp_core.errors import ConnectionLost, JobFailed

__all__ = ["ServerSentEvent", "lines", "parsed", "server_sent_events"]

_LINE_BYTES = 16 * 2**20


@frozen
class ServerSentEvent:
    """One event of a stream (WHATWG HTML, 9.2).

    Attributes:
        event: its type; ``message`` when the stream does not say.
        data: its lines of data, joined by line feeds.
        id: what ``id`` said last; empty when it never did.
    """

    event: str
    data: str
    id: str = ""


async def lines(
    chunks: AsyncIterator[bytes], *, silence_s: float | None = None, max_line_bytes: int = _LINE_BYTES
) -> AsyncIterator[str]:
    """The lines of a stream, without their ends (LF, CR LF). A last line without an end counts.

    Args:
        chunks: the stream as it arrives, capped as a whole by whoever makes it.
        silence_s: how long it may be silent; None: for ever.

    Raises:
        ConnectionLost: it was silent for longer.
        JobFailed: a line is longer than ``max_line_bytes``.
    """
    rest = bytearray()
    searched = 0
    while (chunk := await _next(chunks, silence_s)) is not None:
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            yield rest[:end].removesuffix(b"\r").decode("utf-8", "replace")
            del rest[: end + 1]
            searched = 0
        searched = len(rest)
        if len(rest) > max_line_bytes:
            raise JobFailed(
                f"the service sends a line of more than the {max_line_bytes:,} bytes that are taken",
                details={"reason": "answer_too_long", "limit_bytes": max_line_bytes},
            )
    if rest:
        yield rest.decode("utf-8", "replace")


async def server_sent_events(
    chunks: AsyncIterator[bytes], *, silence_s: float | None = None, max_line_bytes: int = _LINE_BYTES
) -> AsyncIterator[ServerSentEvent]:
    """The events of a stream. Comments are skipped, and so is an event that the stream's end cuts off.

    Raises:
        ConnectionLost, JobFailed: as `lines` does; an event's data count as one line.
    """
    kind, last_id, size = "", "", 0
    data: list[str] = []
    async for line in lines(chunks, silence_s=silence_s, max_line_bytes=max_line_bytes):
        if not line:
            if data:
                yield ServerSentEvent(kind or "message", "\n".join(data), last_id)
            kind, data, size = "", [], 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(value)
        if size > max_line_bytes:
            raise JobFailed(
                f"the service sends an event of more than the {max_line_bytes:,} characters that are taken",
                details={"reason": "answer_too_long", "limit_bytes": max_line_bytes},
            )
        match name:
            case "event":
                kind = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                last_id = value


def parsed(text: str, source: str) -> Any:
    """A line or an event's data as JSON.

    Args:
        source: who sent it, for the message.

    Raises:
        JobFailed: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JobFailed(
            f"{source} sent something that is no JSON in its answer",
            hint="is it the right service, and no proxy's error page?",
            details={"reason": "garbage", "said": text[:200]},
        ) from error


async def _next(chunks: AsyncIterator[bytes], silence_s: float | None) -> bytes | None:
    with anyio.move_on_after(silence_s) as scope:
        return await anext(chunks, None)
    if scope.cancelled_caught:
        raise ConnectionLost(f"the service was silent for {silence_s:g} s in the middle of its answer")
    return None
