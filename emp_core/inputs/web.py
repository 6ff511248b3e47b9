"""Files from URLs: past the guard, hop by hop, and never more than was allowed."""

import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.message import Message
from pathlib import PurePosixPath
from urllib.parse import unquote

import anyio
import httpx
from attrs import frozen
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from emp_core.errors import AddressRefused, InputError, InputUnavailable
from emp_core.inputs.files import Source
from emp_core.network.client import guarded_client
from emp_core.network.guard import Guard

__all__ = ["WebFiles"]

_HOPS = 5
_TRIES = 3
_CONNECT_S = 10.0
_SILENCE_S = 30.0
_CHUNK_BYTES = 64 * 1024
_LATER = (408, 425, 429)
_ZIPPED = ("gzip", "x-gzip", "deflate")


@frozen
class WebFiles:
    """Fetches files from URLs that came from outside.

    Args:
        guard: which addresses may be connected to; asked for every hop of redirects.
        limit_s: how long one file may take, all tries together.
        pause: waits between tries.
    """

    guard: Guard
    limit_s: float = 900.0
    pause: Callable[[float], Awaitable[None]] = anyio.sleep

    async def fetch(self, url: str, take: Callable[[Source], Awaitable[None]]) -> None:
        """Have a file taken; again from its beginning when the connection breaks or the server is busy.

        Raises:
            InputError: it is not there or may not be had, or its address is refused.
            InputUnavailable: it could not be had now.
        """
        shown = _shown(url)
        tries = AsyncRetrying(
            retry=retry_if_exception_type(InputUnavailable),
            stop=stop_after_attempt(_TRIES),
            wait=wait_exponential(multiplier=0.5, max=10),
            sleep=self.pause,
            reraise=True,
        )
        try:
            with anyio.fail_after(self.limit_s):
                async for attempt in tries:
                    with attempt, _told(shown):
                        await self._fetch_once(url, shown, take)
        except TimeoutError as error:
            raise InputUnavailable(
                f"{shown} took longer than {self.limit_s:g} s", hint="EMP_INPUT_TIMEOUT_S says how long it may take"
            ) from error

    async def _fetch_once(self, url: str, shown: str, take: Callable[[Source], Awaitable[None]]) -> None:
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        async with guarded_client(self.guard, timeout=timeout) as client:
            at = self.guard.check_url(url)
            for _ in range(_HOPS + 1):
                # Not by the client: it would read the whole body of each answer that leads on.
                async with client.stream("GET", at) as response:
                    if response.next_request is not None:
                        at = response.next_request.url
                        continue
                    _check_status(response, shown)
                    await take(_source(response, shown))
                    return
            raise InputError(f"{shown} leads on and on: more than {_HOPS} redirects")


def _check_status(response: httpx.Response, shown: str) -> None:
    status = response.status_code
    if response.is_success and status not in (204, 205, 206):
        return
    details = {"status": status}
    if status in _LATER or status >= 500:
        raise InputUnavailable(f"the server of {shown} answered {status}", details=details)
    hint = "signed URLs end: was it made long ago?" if status in (401, 403, 410) else None
    raise InputError(f"the server of {shown} answered {status}", hint=hint, details=details)


def _source(response: httpx.Response, shown: str) -> Source:
    headers = response.headers
    packed = headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity", *_ZIPPED):
        raise InputError(f"the server of {shown} packs files as {packed[:40]!r}, which it was asked not to")
    told = headers.get("content-length", "")
    is_packed = packed in _ZIPPED
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return Source(
        chunks=_unpacked(response.aiter_raw(), shown) if is_packed else response.aiter_raw(),
        name=_name(response),
        media_type=media_type or None,
        size_bytes=int(told) if told.isdecimal() and not is_packed else None,
    )


async def _unpacked(chunks: AsyncIterator[bytes], shown: str) -> AsyncIterator[bytes]:
    """Unpack gzip or deflate piece by piece: a few bytes may stand for gigabytes, and whoever counts them must see them come."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    async for chunk in chunks:
        waiting, more = chunk, True
        while more:
            try:
                piece = unpacking.decompress(waiting, _CHUNK_BYTES)
            except zlib.error as error:
                raise InputError(f"{shown} is said to be packed, and cannot be unpacked: {error}") from error
            waiting = unpacking.unconsumed_tail
            more = bool(waiting) or len(piece) == _CHUNK_BYTES
            yield piece
    if not unpacking.eof:
        raise InputUnavailable(f"{shown} ended before its end")


def _name(response: httpx.Response) -> str:
    """What the file is called: by Content-Disposition (RFC 6266), else by the URL that it came from at last."""
    header = Message()
    header["content-disposition"] = response.headers.get("content-disposition", "")
    told = header.get_filename()
    return told or unquote(PurePosixPath(response.request.url.path).name)


@contextlib.contextmanager
def _told(shown: str) -> Iterator[None]:
    """Say what went wrong as errors of inputs."""
    try:
        yield
    except AddressRefused as error:
        raise InputError(
            f"{shown} may not be fetched: {error.message}",
            hint=error.hint,
            details={**error.details, "reason": error.details.get("reason", "address_refused")},
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise InputUnavailable(
            f"{shown} could not be fetched: {why}", details={"cause": type(error).__name__}
        ) from error


def _shown(url: str) -> str:
    """A URL for messages, without what may open it."""
    return url.partition("?")[0].partition("#")[0][:300]
