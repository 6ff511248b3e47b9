"""Bytes kept aside until all of them are there: a few in memory, many in a temporary file."""

import errno
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Self

import anyio
from anyio.to_thread import run_sync

from emp_core.errors import StorageUnavailable
from emp_core.storage.blocks import Digest, blocks_of

__all__ = ["Spool"]

_CHUNK_BYTES = 2**20


class Spool:
    """Everything that comes out of a stream, with its checksum. The file has no name, and goes with the block."""

    def __init__(self, block_bytes: int) -> None:
        self.digest = Digest()
        self._block_bytes = block_bytes
        self._only: bytes | None = None
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            with anyio.CancelScope(shield=True):  # local and short
                await run_sync(file.close)

    async def take(self, data: bytes | AsyncIterable[bytes]) -> None:
        """Take in everything.

        Raises:
            StorageUnavailable: there is no room for the temporary file.
        """
        async for block in blocks_of(data, self._block_bytes):
            await self.digest.add(block)
            if self._file is None and self._only is None:
                self._only = block
                continue
            await run_sync(self._write, block)

    @property
    def only(self) -> bytes | None:
        """All the bytes, if they are one block; None: they are in the file."""
        return self._only if self._file is None else None

    def chunks(self) -> Iterator[bytes]:
        """All the bytes from the beginning, for a thread to read."""
        if self._file is None:
            yield self._only or b""
            return
        with _room():
            self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def _write(self, block: bytes) -> None:
        with _room():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="emp-")  # noqa: SIM115 - closed with the spool
                self._file.write(self._only or b"")
                self._only = None
            self._file.write(block)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        why = "there is no room left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise StorageUnavailable(
            f"an upload cannot be kept in {folder} until it is whole: {why}",
            hint="free some space, or set TMPDIR to a folder with room",
        ) from error
