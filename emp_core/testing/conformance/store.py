"""`StoreConformance`: what every artifact store keeps to."""

import hashlib
import logging
import secrets
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

import anyio
import pytest

from emp_core.errors import ArtifactExists, ArtifactNotFound, StorageError, StorageUnavailable, UnsafeName
from emp_core.storage.interface import ArtifactStore
from emp_core.testing.conformance.storing import (
    CHUNK_BYTES,
    PATIENCE_S,
    BrokenStream,
    assert_describes,
    assert_nothing_at,
    breaking_stream,
    cancel_a_put,
    is_there,
    put_in_vain,
    read,
    stream_of,
    use,
)
from emp_core.testing.conformance.watching import everything_shown
from emp_core.testing.resources import held_now, left_over

__all__ = ["ListPlace", "MakeStore", "StoreConformance"]

MakeStore = Callable[[], ArtifactStore]
"""Makes a store. All stores that one of these makes are one and the same place: what one puts, the other opens."""
ListPlace = Callable[[], Awaitable[Iterable[str]]]
"""Lists the names of all that lies in the place."""

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


class StoreConformance:
    """The rules of `ArtifactStore`. A subclass gives the fixture ``make_store``::

        class TestMyStore(StoreConformance):
            @pytest.fixture
            def make_store(self, tmp_path):
                return lambda: MyStore(tmp_path)

    and may give more:

    Attributes:
        secrets: texts that no repr, error, address or log may hold: the account key that ``make_store`` hands over.
        big_bytes: length of the stream for which memory is measured.
        memory_bytes: what putting it, and reading it again, may take of this process's memory.

    Fixtures that it may give: ``make_broken_store``, as ``make_store``, for a place that cannot be reached or written now;
    ``list_place``, an async function that lists what lies in the place, unfinished uploads included, without the store.
    """

    pytestmark = pytest.mark.anyio

    secrets: ClassVar[tuple[str, ...]] = ()
    big_bytes: ClassVar[int] = 48 * 2**20
    memory_bytes: ClassVar[int] = 24 * 2**20

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """The suites run on asyncio, as workers do."""
        return "asyncio"

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """The subclass's: makes stores that are one and the same place, empty at first. Making one does no I/O."""
        raise NotImplementedError("give the fixture make_store: it returns a function that makes your store")

    @pytest.fixture
    def make_broken_store(self) -> MakeStore:
        """The subclass's, if it can: makes stores whose place cannot be reached or written now."""
        pytest.skip("give the fixture make_broken_store: it makes a store whose place cannot be reached or written")

    @pytest.fixture
    def list_place(self) -> ListPlace:
        """The subclass's, if it can: lists what lies in the place, unfinished uploads included, by other means."""
        pytest.skip("give the fixture list_place: an async function that lists what lies in the place")

    @pytest.fixture
    async def store(self, make_store: MakeStore) -> AsyncIterator[ArtifactStore]:
        """A store of this test's own."""
        made = make_store()
        yield made
        await made.aclose()

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
            await store.delete(key)
        assert not touched, "the data of an unsafe name was read before the name was refused"

    # Reading and deleting.

    async def test_what_was_never_stored_is_not_found(self, store: ArtifactStore) -> None:
        await store.put("a/there.txt", b"there", media_type="text/plain")
        for key in ("missing.txt", "a/missing.txt", "a", "a/there.txt/below"):
            with pytest.raises(ArtifactNotFound):
                await read(store, key)

    async def test_deleting_twice_is_no_error(self, store: ArtifactStore) -> None:
        await store.put("gone.txt", b"gone", media_type="text/plain")
        for _ in range(2):
            await store.delete("gone.txt")
        with pytest.raises(ArtifactNotFound):
            await read(store, "gone.txt")
        await store.put("gone.txt", b"back", media_type="text/plain")
        assert await read(store, "gone.txt") == b"back", "a name cannot be used again after its file was deleted"

    # Bounds.

    async def test_a_big_stream_takes_little_memory(self, store: ArtifactStore) -> None:
        async def big() -> AsyncIterator[bytes]:
            for number in range(self.big_bytes // CHUNK_BYTES):
                yield number.to_bytes(4, "big") * (CHUNK_BYTES // 4)

        tracemalloc.start()
        try:
            stored = await store.put("big.bin", big(), media_type="application/octet-stream")
            digest, size = hashlib.sha256(), 0
            async for chunk in store.open("big.bin"):
                digest.update(chunk)
                size += len(chunk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (size, digest.hexdigest()) == (stored.size_bytes, stored.sha256), "a big file came back otherwise"
        assert peak <= self.memory_bytes, f"{peak:,} bytes of memory were taken for a stream of {size:,}"

    async def test_nothing_is_left_open(self, make_store: MakeStore) -> None:
        await use(make_store())  # what is loaded once and for all
        before = held_now()
        await use(make_store())
        assert not await left_over(before), "a store that was closed still holds what it opened"

    async def test_closing_twice_is_no_error(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.put("a.txt", b"a", media_type="text/plain")
        for _ in range(2):
            await store.aclose()
        assert not await is_there(make_store(), "b.txt")

    async def test_a_check_of_a_sound_store_passes(self, store: ArtifactStore) -> None:
        for _ in range(2):
            await store.check()

    async def test_nothing_unasked_is_left_in_the_place(self, store: ArtifactStore, list_place: ListPlace) -> None:
        await store.put("asked.bin", b"asked", media_type="text/plain")
        before = set(await list_place())
        assert before, "list_place lists nothing, though a file is stored"
        await store.check()
        await put_in_vain(store)
        await cancel_a_put(store, "cancelled.bin")
        await store.put("short.bin", b"short", media_type="text/plain")
        await store.delete("short.bin")
        assert set(await list_place()) == before, "something nobody asked for is left in the place"

    # Trouble.

    async def test_a_place_that_cannot_be_used_is_unavailable(self, make_broken_store: MakeStore) -> None:
        store = make_broken_store()
        with anyio.fail_after(PATIENCE_S):
            with pytest.raises(StorageUnavailable) as told:
                await store.check()
            with pytest.raises(StorageUnavailable):
                await store.put("a.txt", b"a", media_type="text/plain")
            with pytest.raises(StorageError):
                await read(store, "a.txt")
        await store.aclose()
        assert told.value.hint, "a store that cannot be used says what to do"

    async def test_secrets_are_never_shown(
        self, make_store: MakeStore, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
    ) -> None:
        if not self.secrets:
            pytest.skip("give secrets: the texts that make_store hands over and nobody may see, such as an account key")
        caplog.set_level(logging.DEBUG)
        makers = [make_store]
        if type(self).make_broken_store is not StoreConformance.make_broken_store:
            makers.append(request.getfixturevalue("make_broken_store"))
        shown: list[object] = []
        for make in makers:
            store = make()
            shown.append(store)
            for data in (b"data", b"other"):
                try:
                    shown.append(await store.put("secret.txt", data, media_type="text/plain"))
                except StorageError as error:
                    shown.append(error)
            try:
                await read(store, "missing.txt")
            except StorageError as error:
                shown.append(error)
            try:
                await store.check()
            except StorageError as error:
                shown.append(error)
            await store.aclose()
        text = everything_shown(*shown) + caplog.text
        assert not [secret for secret in self.secrets if secret in text], "a secret is shown"
