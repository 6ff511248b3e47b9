"""Stores that are wrong in one way each, in how they keep files. ``breaks`` names the rule that has to say so."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import anyio
import anyio.lowlevel
from attrs import evolve

from emp_core.errors import ArtifactExists, ArtifactNotFound, StorageError
from emp_core.storage.interface import StoredObject
from emp_core.storage.names import safe_key

from .kept import MIB, Data, KeptStore


async def chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in first:
        yield chunk
    async for chunk in rest:
        yield chunk


class LosesTheEnd(KeptStore):
    """Loses the last bytes of what is long."""

    breaks: ClassVar = "test_bytes_come_back_as_they_were_put"

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        if isinstance(data, bytes) and len(data) > 3 * MIB:
            data = data[: 3 * MIB]
        return await super().put(key, data, **how)


class EndsWithNothing(KeptStore):
    """Takes an empty chunk for the end of the stream."""

    breaks: ClassVar = "test_a_stream_comes_back_as_it_was_put"

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        return await super().put(key, data if isinstance(data, bytes) else self._cut(data), **how)

    async def _cut(self, data: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in data:
            if not chunk:
                return
            yield chunk


class TellsQuoted(KeptStore):
    """Tells a name as it stands in a URL."""

    breaks: ClassVar = "test_odd_names_are_kept_apart"

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        stored = await super().put(key, data, **how)
        return evolve(stored, key=quote(stored.key))


class KnowsItsOwn(KeptStore):
    """Does not find short files that another store of the place has put."""

    breaks: ClassVar = "test_another_store_of_the_same_place_finds_what_was_put"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._put: set[str] = set()

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        self._put.add(key)
        return await super().put(key, data, **how)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        if key not in self._put and await self.is_there(key) and (await self.stat(key)).size_bytes == 5:
            raise ArtifactNotFound(key)
        async for chunk in super().open(key):
            yield chunk


class OneBuffer(KeptStore):
    """Collects streams into folders in one buffer."""

    breaks: ClassVar = "test_many_at_once_do_not_mix"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._buffer: list[bytes] = []

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        if not isinstance(data, bytes) and "/" in safe_key(key):
            self._buffer.clear()
            async for chunk in data:
                await anyio.lowlevel.checkpoint()
                self._buffer.append(chunk)
            data = b"".join(self._buffer)
        return await super().put(key, data, **how)


class Resentful(KeptStore):
    """Never again takes a name whose stream has raised, or whose put was cancelled."""

    breaks: ClassVar = "test_a_stream_that_raises_leaves_nothing_and_its_error_comes_out"
    resents: ClassVar[type[BaseException]] = Exception

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._resented: set[str] = set()

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        if key in self._resented:
            raise ArtifactExists(key)
        try:
            return await super().put(key, data, **how)
        except self.resents:
            with anyio.CancelScope(shield=True):
                if not await self.is_there(key):
                    self._resented.add(key)
            raise


class ResentsCancelling(Resentful):
    breaks: ClassVar = "test_a_cancelled_put_leaves_nothing"
    resents: ClassVar[type[BaseException]] = asyncio.CancelledError


class MakesRoomFirst(KeptStore):
    """Deletes what is there before it takes what comes."""

    breaks: ClassVar = "test_a_stream_that_raises_leaves_what_was_there"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        if overwrite and not isinstance(data, bytes):
            await self.delete(key)
        return await super().put(key, data, overwrite=overwrite, **how)


class Impatient(KeptStore):
    """Shows a file as soon as its first bytes are there."""

    breaks: ClassVar = "test_a_file_is_not_there_before_it_is_whole"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        if isinstance(data, bytes) or overwrite or safe_key(key) == "raced.txt" or await self.is_there(key):
            return await super().put(key, data, overwrite=overwrite, **how)
        chunks = aiter(data)
        first = [chunk] if (chunk := await anext(chunks, None)) is not None else []
        await super().put(key, b"".join(first), **how)
        whole = False
        try:
            stored = await super().put(key, chained(first, chunks), overwrite=True, **how)
            whole = True
        finally:
            if not whole:
                with anyio.CancelScope(shield=True):
                    await self.delete(key)
        return stored


class IgnoresCase(KeptStore):
    """Takes what differs in capital letters alone for the same."""

    breaks: ClassVar = "test_other_bytes_are_refused_unless_asked_for"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        if isinstance(data, bytes) and not overwrite and await self.is_there(key):
            there = b"".join([chunk async for chunk in self.open(key)])
            if there.lower() == data.lower():
                return await self.stat(key)
        return await super().put(key, data, overwrite=overwrite, **how)


class OnceOnly(KeptStore):
    """Refuses the same bytes, too."""

    breaks: ClassVar = "test_the_same_bytes_again_are_no_error"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        if not overwrite and await self.is_there(key):
            raise ArtifactExists(key)
        return await super().put(key, data, overwrite=overwrite, **how)


class KeepsTexts(KeptStore):
    """Never replaces a text."""

    breaks: ClassVar = "test_overwriting_replaces_what_was_there"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        if overwrite and key.endswith(".txt") and await self.is_there(key):
            return await self.stat(key)
        return await super().put(key, data, overwrite=overwrite, **how)


class LooksOnlyFirst(KeptStore):
    """Looks whether a name is free when the stream begins, and then no more."""

    breaks: ClassVar = "test_of_many_who_put_one_name_at_once_one_wins"

    async def put(self, key: str, data: Data, *, overwrite: bool = False, **how: Any) -> StoredObject:
        overwrite = overwrite or not await self.is_there(key)
        return await super().put(key, data, overwrite=overwrite, **how)


class Forgiving(KeptStore):
    """Mends names that are none."""

    breaks: ClassVar = "test_a_name_that_tries_to_leave_is_refused"

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        return await super().put(key.replace("//", "/"), data, **how)


class NoFolder(KeptStore):
    """Does not expect a file in the place of a folder."""

    breaks: ClassVar = "test_what_was_never_stored_is_not_found"

    async def stat(self, key: str) -> StoredObject:
        folder = key.rpartition("/")[0]
        if folder and (self.root / safe_key(folder)).is_file():
            raise StorageError(f"{folder} is no folder")
        return await super().stat(key)


class DeletesOnce(KeptStore):
    breaks: ClassVar = "test_deleting_twice_is_no_error"

    async def delete(self, key: str) -> None:
        await self.stat(key)
        await super().delete(key)
