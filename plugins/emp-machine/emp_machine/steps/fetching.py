"""One file from the web: tried again while bytes keep coming, resumed where it was cut off, checked before it has its name."""

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from glob import escape
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from emp_core.errors import InstallError
from emp_core.log.redaction import hide_secrets
from emp_core.services.installer import StepContext
from emp_machine.steps.manifest import FileEntry
from emp_machine.steps.records import sha256_of

__all__ = ["Fetching", "Interrupted"]

_BLOCK = 2**20
_NAME_MAX, _WHICH = 180, 12
"""How many characters of a file's name, and of what tells its source, are in the name of what has come so far."""

_TRIES = 5
_WAIT_MAX_S = 60.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Interrupted(Exception):
    """A try ended early; the next goes on where it was.

    Attributes:
        retry_after: what the server asks to be waited, in seconds.
    """

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Fetching:
    """Fetches files side by side, and tells how far all of them are together.

    Args:
        folder: the files' paths are relative to it.
        environ: where tokens are read from.
        sleep: waits before a further try.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        folder: Path,
        environ: Mapping[str, str],
        context: StepContext,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._client = client
        self._folder = folder
        self._environ = environ
        self._context = context
        self._sleep = sleep
        self._expected = 0
        self._received = 0
        self._backoff = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)

    def part(self, entry: FileEntry) -> Path:
        """Where what has come so far is kept. Another address or checksum begins another."""
        file = self._folder / entry.path
        which = hashlib.sha256(f"{entry.url} {entry.sha256}".encode()).hexdigest()[:_WHICH]
        return file.with_name(f".{file.name[:_NAME_MAX]}.{which}.part")

    def expect(self, size: int) -> None:
        """Count a file's bytes among those that are to come."""
        self._expected += size

    async def size(self, entry: FileEntry) -> int | None:
        """What the server says of its size, in bytes; None if it does not tell, or not now.

        An address that was signed for GET alone answers 403 here: only fetching it tells whether it can be had.

        Raises:
            InstallError: the variable of its token is not set.
        """
        try:
            answer = await self._client.head(entry.url, headers=self._headers(entry))
        except httpx.TransportError:
            return None
        told = answer.headers.get("content-length", "")
        return int(told) if answer.is_success and told.isdecimal() else None

    async def fetch(self, entry: FileEntry) -> None:
        """Bring the file to its place.

        Raises:
            InstallError: it cannot be had, is not what the manifest says, or does not fit on the disk.
        """
        part = self.part(entry)
        part.parent.mkdir(parents=True, exist_ok=True)
        before = _size(part)
        self._received += before
        idle = 0

        def enough(_state: RetryCallState) -> bool:
            """Give up only after several tries in a row that brought nothing."""
            nonlocal idle, before
            now = _size(part)
            idle, before = (0 if now > before else idle + 1), now
            return idle >= _TRIES

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            told = error.retry_after if isinstance(error, Interrupted) else 0.0
            return min(max(told, self._backoff(state)), _WAIT_MAX_S)

        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Interrupted), stop=enough, wait=pause, sleep=self._sleep, reraise=True
            ):
                with attempt:
                    await self._try(entry, part)
        except Interrupted as error:
            raise InstallError(
                f"{hide_secrets(entry.url)} could not be fetched: {error}", hint="try again: it goes on where it was"
            ) from error
        except OSError as error:
            raise _on_disk(part, error) from error
        await self._put_in_place(entry, part)

    async def _try(self, entry: FileEntry, part: Path) -> None:
        have = _size(part)
        if entry.size is not None and have == entry.size:
            return
        seen = part.with_suffix(".seen")
        validator = seen.read_text() if have and seen.is_file() else ""
        if have and not validator and entry.sha256 is None:
            have = 0  # nothing could tell whether the rest belongs to what is here
        headers = self._headers(entry)
        if have:
            headers |= {"Range": f"bytes={have}-", **({"If-Range": validator} if validator else {})}
        try:
            async with self._client.stream("GET", entry.url, headers=headers) as answer:
                start = _start(answer, entry, have)
                if start is None:
                    _forget(part)
                    raise Interrupted(f"the server has no bytes from {have} on")
                seen.write_text(_validator(answer))
                self._received += start - have
                await self._write(entry, part, start, answer)
        except httpx.TransportError as error:
            raise Interrupted(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        except httpx.HTTPError as error:
            raise InstallError(f"{hide_secrets(entry.url)}: {type(error).__name__}: {error}") from error

    async def _write(self, entry: FileEntry, part: Path, start: int, answer: httpx.Response) -> None:
        async with await anyio.open_file(part, "r+b" if start else "wb") as file:
            await file.seek(start)
            await file.truncate()
            at = start
            async for block in answer.aiter_raw(_BLOCK):
                at += len(block)
                if entry.size is not None and at > entry.size:
                    raise InstallError(f"the server sends more than the {entry.size} bytes that the manifest says")
                await file.write(block)
                self._received += len(block)
                if self._expected:
                    self._context.progress(self._received / self._expected, entry.path)

    async def _put_in_place(self, entry: FileEntry, part: Path) -> None:
        size, sha256 = await anyio.to_thread.run_sync(_put_in_place, entry, part, self._folder / entry.path)
        self._context.log(f"{entry.path}: {size} bytes, sha256 {sha256}")

    def _headers(self, entry: FileEntry) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if entry.token_env:
            token = self._environ.get(entry.token_env, "").strip()
            if not token:
                raise InstallError(
                    f"{entry.token_env} is not set, and the server wants a token", hint="put it into .env"
                )
            headers["Authorization"] = f"Bearer {token}"
        return headers


def _start(answer: httpx.Response, entry: FileEntry, have: int) -> int | None:
    """Where the bytes of an answer begin; None: what is here is of no use to the server.

    Raises:
        Interrupted: the server cannot answer now.
        InstallError: it will not.
    """
    status = answer.status_code
    if status == 206:
        told = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        return have if told == str(have) else None
    if status == 416:
        return None
    if status in _AGAIN:
        raise Interrupted(f"the server answers {status}", _retry_after(answer))
    if status != 200:
        raise _refused(entry, status)
    length = answer.headers.get("content-length", "")
    if entry.size is not None and length.isdecimal() and int(length) != entry.size:
        raise InstallError(f"the server has {length} bytes, and the manifest says {entry.size}")
    return 0


def _refused(entry: FileEntry, status: int) -> InstallError:
    hint = None
    if status in (401, 403):
        hint = "a token may be needed: name its variable as token_env in the manifest"
    return InstallError(f"{hide_secrets(entry.url)}: the server answers {status}", hint=hint)


def _validator(answer: httpx.Response) -> str:
    """What tells later whether the file is still the same; empty if nothing does (RFC 9110, 13.1.5)."""
    tag: str = answer.headers.get("etag", "")
    return tag if tag.startswith('"') else answer.headers.get("last-modified", "")


def _retry_after(answer: httpx.Response) -> float:
    told = answer.headers.get("retry-after", "").strip()
    if told.isdecimal():
        return float(told[:9])
    try:
        when = parsedate_to_datetime(told)
        now = parsedate_to_datetime(answer.headers["date"])
    except (ValueError, KeyError, TypeError):
        return 0.0
    return max(0.0, (when - now).total_seconds())


def _put_in_place(entry: FileEntry, part: Path, file: Path) -> tuple[int, str]:
    """Check what came and give it its name; gives its size and checksum.

    Raises:
        InstallError: it is not what the manifest says.
    """
    size, sha256 = _size(part), sha256_of(part)
    part.with_suffix(".seen").unlink(missing_ok=True)
    wrong = None
    if entry.size is not None and size != entry.size:
        wrong = f"{size} bytes came, and the manifest says {entry.size}"
    elif entry.sha256 is not None and sha256 != entry.sha256:
        wrong = f"its checksum is {sha256}, and the manifest says {entry.sha256}"
    if wrong:
        aside = file.with_name(f"{file.name}.wrong")
        part.replace(aside)
        raise InstallError(f"{wrong}; what came is kept as {aside.name}")
    with part.open("rb") as opened:
        os.fsync(opened.fileno())
    part.replace(file)
    for other in file.parent.glob(f".{escape(file.name[:_NAME_MAX])}.{'?' * _WHICH}.part"):
        _forget(other)  # begun from another address, or for another checksum
    return size, sha256


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".seen").unlink(missing_ok=True)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _on_disk(part: Path, error: OSError) -> InstallError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InstallError(f"the disk is full: {part.parent}", hint="free some space: what came so far is kept")
    return InstallError(f"{part.parent}: {error.strerror or error}")
