"""Rules of `StoreConformance`: files that are put, read, overwritten and deleted."""

import secrets
from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from emp_core.errors import ArtifactExists, ArtifactNotFound, CannotSign, UnsafeName
from emp_core.storage.interface import ArtifactStore
from emp_core.testing.conformance.store_base import MakeStore, StoreRules
from emp_core.testing.conformance.storing import (
    CHUNK_BYTES,
    ODD_KEYS,
    PATIENCE_S,
    UNSAFE_KEYS,
    BrokenStream,
    assert_describes,
    assert_nothing_at,
    breaking_stream,
    cancel_a_put,
    is_there,
    put_in_vain,
    read,
    stream_of,
)

__all__ = ["FileRules"]


class FileRules(StoreRules):
    """Files that are put, read, overwritten and deleted."""

    # What goes in comes out.

    @pytest.mark.parametrize("size", [0, 5, 3 * CHUNK_BYTES + 7])
    async def test_bytes_come_back_as_they_were_put(self, store: ArtifactStore, size: int) -> None:
        data = secrets.token_bytes(size)
        stored = await store.put("a/b.bin", data, media_type="application/x-odd")
        assert await read(store, "a/b.bin") == data, "other bytes came back than were put"
        assert_describes(stored, "a/b.bin", data, "application/x-odd")

    @pytest.mark.parametrize("sizes", [(), (0, 0), (5, 0, 3), (1,) * 1000, (CHUNK_BYTES, 1, 5 * CHUNK_BYTES)])
    async def test_a_stream_comes_back_as_it_was_put(self, store: ArtifactStore, sizes: Sequence[int]) -> None:
        chunks = [secrets.token_bytes(size) for size in sizes]
        stored = await store.put("stream.bin", stream_of(chunks), media_type="application/octet-stream")
        assert await read(store, "stream.bin") == b"".join(chunks), "other bytes came back than the stream gave"
        assert_describes(stored, "stream.bin", b"".join(chunks), "application/octet-stream")

    @pytest.mark.parametrize("key", ODD_KEYS)
    async def test_odd_names_are_kept_apart(self, store: ArtifactStore, key: str) -> None:
        others = [other for other in ODD_KEYS if other != key]
        for other in others:
            await store.put(other, b"other", media_type="text/plain")
        stored = await store.put(key, b"mine", media_type="text/plain")
        assert stored.key == key, f"{key!r} is told as {stored.key!r}"
        assert await read(store, key) == b"mine", f"{key!r} was mixed up with another name"
        await store.delete(key)
        assert await read(store, others[0]) == b"other", f"deleting {key!r} took another one with it"

    async def test_another_store_of_the_same_place_finds_what_was_put(self, make_store: MakeStore) -> None:
        one, other = make_store(), make_store()
        await one.put("shared.txt", b"hello", media_type="text/plain")
        await one.aclose()
        assert await read(other, "shared.txt") == b"hello", "what is put is only there for the store that put it"
        await other.aclose()

    async def test_many_at_once_do_not_mix(self, store: ArtifactStore) -> None:
        async def put_and_read(number: int) -> None:
            data = bytes([number]) * (1000 + number)
            await store.put(f"many/{number}", stream_of([data[:500], data[500:]]), media_type="text/plain")
            found[number] = await read(store, f"many/{number}") == data

        found: dict[int, bool] = {}
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for number in range(16):
                    group.start_soon(put_and_read, number)
        assert found == dict.fromkeys(range(16), True), "files that were stored side by side got mixed up"

    # Whole or not at all.

    async def test_a_stream_that_raises_leaves_nothing_and_its_error_comes_out(self, store: ArtifactStore) -> None:
        await put_in_vain(store)
        await assert_nothing_at(store, "half.bin", "a stream that raised")

    async def test_a_stream_that_raises_leaves_what_was_there(self, store: ArtifactStore) -> None:
        await store.put("kept.bin", b"old", media_type="text/plain")
        with pytest.raises(BrokenStream):
            await store.put("kept.bin", breaking_stream([b"new"]), media_type="text/plain", overwrite=True)
        assert await read(store, "kept.bin") == b"old", "half of a new file took the place of a whole one"

    async def test_a_cancelled_put_leaves_nothing(self, store: ArtifactStore) -> None:
        await cancel_a_put(store, "cancelled.bin")
        await assert_nothing_at(store, "cancelled.bin", "a put that was cancelled")

    async def test_a_file_is_not_there_before_it_is_whole(self, store: ArtifactStore) -> None:
        seen: list[bool] = []

        async def looking() -> AsyncIterator[bytes]:
            yield b"x" * CHUNK_BYTES
            seen.append(await is_there(store, "growing.bin"))
            yield b"y"

        await store.put("growing.bin", looking(), media_type="text/plain")
        assert seen == [False], "half a file can be read under its name"
        assert await is_there(store, "growing.bin"), "the whole file cannot be read"

    # Overwriting.

    async def test_other_bytes_are_refused_unless_asked_for(self, store: ArtifactStore) -> None:
        await store.put("taken.txt", b"first", media_type="text/plain")
        for data in (b"second", stream_of([b"sec", b"ond"]), b"firs", b"FIRST"):
            with pytest.raises(ArtifactExists):
                await store.put("taken.txt", data, media_type="text/plain")
        assert await read(store, "taken.txt") == b"first", "a file was overwritten unasked"

    async def test_the_same_bytes_again_are_no_error(self, store: ArtifactStore) -> None:
        first = await store.put("same.txt", b"same", media_type="text/plain")
        for data in (b"same", stream_of([b"sa", b"me"])):
            again = await store.put("same.txt", data, media_type="text/plain")
            assert (again.key, again.sha256, again.size_bytes) == (first.key, first.sha256, first.size_bytes)

    async def test_overwriting_replaces_what_was_there(self, store: ArtifactStore) -> None:
        await store.put("over.txt", b"a longer first text", media_type="text/plain")
        stored = await store.put("over.txt", b"second", media_type="text/html", overwrite=True)
        assert await read(store, "over.txt") == b"second", "the old bytes are still there"
        assert_describes(stored, "over.txt", b"second", "text/html")

    async def test_of_many_who_put_one_name_at_once_one_wins(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(6)]
        ready = anyio.Event()
        won: list[bytes] = []
        refused: list[bytes] = []

        async def put(store: ArtifactStore, data: bytes) -> None:
            async def together() -> AsyncIterator[bytes]:
                yield data[:1]
                await ready.wait()
                yield data[1:]

            try:
                await store.put("raced.txt", together(), media_type="text/plain")
            except ArtifactExists:
                refused.append(data)
            else:
                won.append(data)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for number, store in enumerate(stores):
                    group.start_soon(put, store, bytes([65 + number]) * 1000)
                await anyio.wait_all_tasks_blocked()
                ready.set()
        assert len(won) == 1, f"{len(won)} of {len(stores)} writers of one name were told that theirs is stored"
        assert len(refused) == len(stores) - 1, "a writer of a name that was taken was not refused"
        assert await read(stores[0], "raced.txt") == won[0], "what is stored is not what the winner put"
        for store in stores:
            await store.aclose()

    # Names.

    @pytest.mark.parametrize("key", UNSAFE_KEYS)
    async def test_a_name_that_tries_to_leave_is_refused(self, store: ArtifactStore, key: str) -> None:
        async def pulled() -> AsyncIterator[bytes]:
            touched.append(key)
            yield b"data"

        touched: list[str] = []
        with pytest.raises(UnsafeName):
            await store.put(key, pulled(), media_type="text/plain")
        with pytest.raises(UnsafeName):
            await read(store, key)
        with pytest.raises(UnsafeName):
            await store.stat(key)
        with pytest.raises(UnsafeName):
            await store.delete(key)
        with pytest.raises((UnsafeName, CannotSign)):
            await store.sign(key, expires_in_s=60)
        assert not touched, "the data of an unsafe name was read before the name was refused"

    # Reading and deleting.

    async def test_what_was_never_stored_is_not_found(self, store: ArtifactStore) -> None:
        await store.put("a/there.txt", b"there", media_type="text/plain")
        for key in ("missing.txt", "a/missing.txt", "a", "a/there.txt/below"):
            with pytest.raises(ArtifactNotFound):
                await read(store, key)
            with pytest.raises(ArtifactNotFound):
                await store.stat(key)

    async def test_deleting_twice_is_no_error(self, store: ArtifactStore) -> None:
        await store.put("gone.txt", b"gone", media_type="text/plain")
        for _ in range(2):
            await store.delete("gone.txt")
        with pytest.raises(ArtifactNotFound):
            await read(store, "gone.txt")
        await store.put("gone.txt", b"back", media_type="text/plain")
        assert await read(store, "gone.txt") == b"back", "a name cannot be used again after its file was deleted"
