"""Bytes cut into blocks on their way to a store, and read back range by range."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

from anyio.to_thread import run_sync
from attrs import define, field

from emp_core.errors import ArtifactExists, StorageError
from emp_core.storage.interface import StoredObject

__all__ = ["Digest", "blocks_of", "read_ranges", "the_same"]

_WORTH_A_THREAD = 64 * 1024


@define
class Digest:
    """The checksum and length of bytes that pass by."""

    size_bytes: int = 0
    _sha256: "hashlib._Hash" = field(factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._sha256.hexdigest()

    async def add(self, data: bytes) -> None:
        """Take in the next bytes. Many of them are added up in a thread, where they hold up nobody."""
        self.size_bytes += len(data)
        if len(data) < _WORTH_A_THREAD:
            self._sha256.update(data)
        else:
            await run_sync(self._sha256.update, data)


async def blocks_of(data: bytes | AsyncIterable[bytes], size: int) -> AsyncIterator[bytes]:
    """The data in blocks of ``size`` bytes, the last one with what is left; a single empty one for no data."""
    if isinstance(data, bytes | bytearray | memoryview):
        for at in range(0, max(1, len(data)), size):
            yield bytes(data[at : at + size])
        return
    waiting = bytearray()
    given = False
    async for chunk in data:
        waiting += chunk
        while len(waiting) > size:
            yield bytes(waiting[:size])
            given = True
            del waiting[:size]
    if waiting or not given:
        yield bytes(waiting)


async def read_ranges(
    stored: StoredObject, size: int, fetch: Callable[[int, int], Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    """A file's bytes, fetched range by range, so that one that fails is asked for again by itself.

    Args:
        fetch: gives the bytes from a position to another, which is not included.

    Raises:
        StorageError: they are not the bytes that were stored.
    """
    digest = Digest()
    for at in range(0, stored.size_bytes, size):
        block = await fetch(at, min(at + size, stored.size_bytes))
        await digest.add(block)
        yield block
    if digest.size_bytes != stored.size_bytes or stored.sha256 not in ("", digest.sha256):
        raise StorageError(
            f"{stored.url} is damaged: its checksum is not that of the bytes that were stored",
            hint="remove it, and run the job again",
        )


def the_same(there: StoredObject, digest: Digest) -> StoredObject:
    """What is stored already, if it is the same bytes.

    Raises:
        ArtifactExists: it is not.
    """
    if (there.sha256, there.size_bytes) != (digest.sha256, digest.size_bytes):
        raise ArtifactExists(
            f"{there.url} holds something else", hint="use another name, or ask for it to be overwritten"
        )
    return there
