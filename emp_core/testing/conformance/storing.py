"""What the suites do with stores: put streams, sound and broken ones, read, and look at what became of it."""

import hashlib
from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from emp_core.errors import ArtifactExists, ArtifactNotFound
from emp_core.storage.interface import ArtifactStore, StoredObject

__all__ = [
    "CHUNK_BYTES",
    "ODD_KEYS",
    "PATIENCE_S",
    "UNSAFE_KEYS",
    "BrokenStream",
    "assert_describes",
    "assert_nothing_at",
    "breaking_stream",
    "cancel_a_put",
    "is_there",
    "put_in_vain",
    "read",
    "stream_of",
    "use",
]

CHUNK_BYTES = 2**20
PATIENCE_S = 60.0
"""Far longer than anything takes that works."""


UNSAFE_KEYS = (
    "../out.txt",
    "/out.txt",
    "a/../../out.txt",
    "a\\..\\out.txt",
    "C:out.txt",
    "a\0b.txt",
    "",
    "a//b.txt",
    ".",
)
ODD_KEYS = (
    *("with space.txt", "ünïcödé 画像.png", "per%2Fcent %41.txt", "query?a=b&c#d.txt", "plus+tilde~.txt", "no_suffix"),
    *(".hidden", "deep/er/and/deep/er.txt", "a'b(c)[d]{e}!$,;=@.txt"),
)


class BrokenStream(Exception):
    """What the streams of the suites break with."""


async def stream_of(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A stream of these chunks."""
    for chunk in chunks:
        yield chunk


async def breaking_stream(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A stream that breaks after these chunks."""
    for chunk in chunks:
        yield chunk
    raise BrokenStream


async def read(store: ArtifactStore, key: str) -> bytes:
    """A whole file."""
    return b"".join([chunk async for chunk in store.open(key)])


async def is_there(store: ArtifactStore, key: str) -> bool:
    """Whether a file can be read."""
    try:
        await read(store, key)
    except ArtifactNotFound:
        return False
    return True


async def use(store: ArtifactStore) -> None:
    """Use a store as workers do, errors included, and close it."""
    await store.put("used.bin", b"x" * 3 * CHUNK_BYTES, media_type="text/plain", overwrite=True)
    async for _ in store.open("used.bin"):
        pass
    await put_in_vain(store)
    with pytest.raises(ArtifactExists):
        await store.put("used.bin", b"other", media_type="text/plain")
    with pytest.raises(ArtifactNotFound):
        await read(store, "missing.bin")
    await store.delete("used.bin")
    await store.aclose()


async def put_in_vain(store: ArtifactStore) -> None:
    """Put a stream that breaks."""
    with pytest.raises(BrokenStream):
        await store.put("half.bin", breaking_stream([b"x" * CHUNK_BYTES] * 2), media_type="text/plain")


async def cancel_a_put(store: ArtifactStore, key: str) -> None:
    """Begin to put, and cancel it in the middle of the stream."""
    begun = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * CHUNK_BYTES
        begun.set()
        await anyio.sleep_forever()

    async def put() -> None:
        await store.put(key, endless(), media_type="text/plain")

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(put)
            await begun.wait()
            group.cancel_scope.cancel()


async def assert_nothing_at(store: ArtifactStore, key: str, what: str) -> None:
    """Nothing can be read under the name, and the name is free."""
    assert not await is_there(store, key), f"{what} left a file behind"
    await store.put(key, b"whole", media_type="text/plain")
    assert await read(store, key) == b"whole", f"{what} left something in the way of the next one"


def assert_describes(stored: StoredObject, key: str, data: bytes, media_type: str) -> None:
    """What the store tells of a file is true."""
    assert stored.key == key, f"stored under {key!r}, told is {stored.key!r}"
    assert stored.size_bytes == len(data), f"{len(data)} bytes were stored, told are {stored.size_bytes}"
    assert stored.sha256 == hashlib.sha256(data).hexdigest(), "the checksum is not that of the bytes"
    assert stored.media_type == media_type, f"the media type is told as {stored.media_type!r}"
    assert "://" in stored.url or stored.url.startswith("file:"), f"{stored.url!r} is no address"
