"""Files of this machine in a payload: ``-p image=@cat.png``. Small ones travel in it, larger ones through the artifact store."""

import hashlib
import os
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from attrs import frozen

from emp_core.cli.output import clean, note
from emp_core.cli.stores import open_stores
from emp_core.config import Settings
from emp_core.errors import ConfigError, PayloadTooLarge
from emp_core.inputs.artifacts import upload_key
from emp_core.inputs.files import safe_name
from emp_core.inputs.media_types import HEAD_BYTES, UNKNOWN, settled_type
from emp_core.jobs.inputs import InputRef

__all__ = ["Attachment", "attachments_in", "payload_values"]

_INLINE_BYTES = 128 * 2**10
"""Larger files are not kept in Redis where there is a store."""
_CHUNK_BYTES = 2**20
_TOLD_BYTES = 8 * 2**20
_STDIN = "-"


@frozen
class Attachment:
    """A file that the command line names.

    Attributes:
        assignment: as it stands on the command line: ``image=@cat.png``.
        path: the file; that of stdin is a temporary one.
        name: what the job is told that it is called; empty: nothing.
    """

    assignment: str
    path: Path
    name: str
    size_bytes: int

    @property
    def encoded_bytes(self) -> int:
        """How long it is in base64."""
        return (self.size_bytes + 2) // 3 * 4


@contextmanager
def attachments_in(assignments: Sequence[str]) -> Iterator[list[Attachment]]:
    """The files that ``NAME=@FILE`` assignments name; ``@-`` is stdin, and ``@@`` begins a text.

    Raises:
        ConfigError: files that cannot be read; lists all of them.
    """
    with tempfile.TemporaryDirectory(prefix="emp-") as folder:
        found: list[Attachment] = []
        problems: list[str] = []
        for assignment in assignments:
            _, _, text = assignment.partition("=")
            if not text.startswith("@") or text.startswith("@@"):
                continue
            try:
                found.append(_attachment(assignment, text[1:], Path(folder)))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                problems.append(f"-p {assignment}: {reason}")
        if problems:
            raise ConfigError(
                "files cannot be read", problems=tuple(problems), hint="a text that begins with @ is written @@"
            )
        yield found


def _attachment(assignment: str, source: str, folder: Path) -> Attachment:
    if source == _STDIN:
        return _from_stdin(assignment, folder)
    path = Path(source).expanduser()
    if not path.is_file():
        path.stat()  # says that it is not there, if it is not
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes == 0:
        raise ValueError("it is empty")
    return Attachment(assignment, path, safe_name(path.name), size_bytes)


def _from_stdin(assignment: str, folder: Path) -> Attachment:
    path = folder / "stdin"
    try:
        with path.open("xb") as file:
            while chunk := sys.stdin.buffer.read(_CHUNK_BYTES):
                file.write(chunk)
            size_bytes = file.tell()
    except FileExistsError:
        raise ValueError("stdin was read already") from None
    if size_bytes == 0:
        raise ValueError("stdin is empty")
    return Attachment(assignment, path, "", size_bytes)


async def payload_values(
    attachments: Sequence[Attachment], settings: Settings, payload_bytes: int, customer_id: str | None
) -> Mapping[str, Any]:
    """What stands in the payload for each file, by its assignment; large files are in the artifact store then.

    Args:
        payload_bytes: the length of the payload without the files.
        customer_id: whose job it will be; nobody else's can read what is stored.

    Raises:
        PayloadTooLarge: there is no store that workers see, and the files do not fit into the payload.
        StorageError: a file could not be stored.
    """
    values: dict[str, Any] = {}
    room = settings.max_payload_bytes - payload_bytes
    stored: list[Attachment] = []
    for one in sorted(attachments, key=lambda each: each.size_bytes):
        small = one.size_bytes <= _INLINE_BYTES or not _workers_see_the_store(settings)
        if small and one.encoded_bytes <= room:
            room -= one.encoded_bytes
            values[one.assignment] = await run_sync(_inline, one)
        else:
            stored.append(one)
    if stored and not _workers_see_the_store(settings):
        raise PayloadTooLarge(
            f"{clean(stored[0].path)} has {stored[0].size_bytes:,} bytes, too many for the payload, and EMP_STORE is not set here",
            hint="set EMP_STORE to the artifact store of the workers, or put the file where they can fetch it: a URL, a folder",
        )
    if stored:
        values.update(await _put(stored, settings, customer_id))
    return values


def _workers_see_the_store(settings: Settings) -> bool:
    """Whether what is stored here is there for workers: the default store is a folder of this machine."""
    return settings.store is not None or settings.redis_url is None


def _inline(one: Attachment) -> dict[str, Any]:
    return InputRef("base64", b64encode(one.path.read_bytes()).decode(), name=one.name or None).as_payload()


async def _put(stored: Sequence[Attachment], settings: Settings, customer_id: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    async with open_stores(settings) as stores:
        store = stores.get()
        with _progress(stored) as advance:
            for one in stored:
                sha256, media_type = await run_sync(_looked_at, one)
                key = upload_key(customer_id, sha256, one.name or "input")
                await store.put(key, _chunks(one, advance), media_type=media_type)
                ref = InputRef("artifact", key, name=one.name or None, sha256=sha256)
                values[one.assignment] = ref.as_payload()
    return values


def _looked_at(one: Attachment) -> tuple[str, str]:
    """A file's checksum and type."""
    with one.path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return sha256, settled_type(head, said=None, told=None, name=one.name)[0] or UNKNOWN


async def _chunks(one: Attachment, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    async with await anyio.open_file(one.path, "rb") as file:
        while chunk := await file.read(_CHUNK_BYTES):
            yield chunk
            advance(len(chunk))


@contextmanager
def _progress(stored: Sequence[Attachment]) -> Iterator[Callable[[int], None]]:
    """Show how far uploads are that take a while: by a bar on a terminal, in one line elsewhere."""
    total = sum(one.size_bytes for one in stored)
    if total < _TOLD_BYTES:
        yield lambda _: None
        return
    names = ", ".join(one.name or "stdin" for one in stored)
    if not sys.stderr.isatty():
        note(f"storing {clean(names)} ({total:,} bytes) for the job")
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as progress:
        task = progress.add_task(f"storing {clean(names)[:40]}", total=total)
        yield lambda count: progress.update(task, advance=count)
