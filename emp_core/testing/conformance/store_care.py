"""Rules of `StoreConformance`: what a store takes, what it leaves behind, and what it says in trouble."""

import hashlib
import logging
import tracemalloc
from collections.abc import AsyncIterator

import anyio
import pytest

from emp_core.errors import StorageError, StorageUnavailable
from emp_core.storage.interface import ArtifactStore
from emp_core.testing.conformance.store_base import ListPlace, MakeStore, StoreRules
from emp_core.testing.conformance.storing import CHUNK_BYTES, PATIENCE_S, cancel_a_put, is_there, put_in_vain, read, use
from emp_core.testing.conformance.watching import everything_shown
from emp_core.testing.resources import held_now, left_over

__all__ = ["CareRules"]


class CareRules(StoreRules):
    """What a store takes, what it leaves behind, and what it says in trouble."""

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
        other = make_store()
        assert await is_there(other, "a.txt"), "closing a store took its files away"
        await other.aclose()

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
        if type(self).make_broken_store is not StoreRules.make_broken_store:
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
