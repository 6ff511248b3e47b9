"""Rules of `StoreConformance`: what a store tells of its files."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from emp_core.errors import CannotSign
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.testing.conformance.store_base import MakeStore, StoreRules
from emp_core.testing.conformance.storing import ODD_KEYS, assert_describes, read, stream_of

__all__ = ["TellingRules"]

_CLOCKS_DIFFER = timedelta(minutes=10)


class TellingRules(StoreRules):
    """What a store tells of its files."""

    async def test_what_is_known_of_a_file_is_kept_with_it(self, make_store: MakeStore) -> None:
        one, other = make_store(), make_store()
        put = await one.put("a/kept.bin", stream_of([b"ke", b"pt"]), media_type="image/x-odd", retention="short-lived")
        await one.aclose()
        known = await other.stat("a/kept.bin")
        assert_describes(known, "a/kept.bin", b"kept", "image/x-odd")
        assert known.retention == put.retention == "short-lived", f"the retention class is told as {known.retention!r}"
        assert known.url == put.url, "the address of a file changes"
        for told in (put, known):
            assert told.stored_at is not None, "when the file was stored is not told"
            assert told.stored_at.tzinfo is not None, "when the file was stored is told without a time zone"
            assert abs(told.stored_at - datetime.now(UTC)) < _CLOCKS_DIFFER, (
                f"stored just now, told is {told.stored_at}"
            )
        await other.aclose()

    async def test_what_is_known_follows_an_overwrite(self, store: ArtifactStore) -> None:
        await store.put("over.bin", b"first", media_type="text/plain", retention="keep")
        await store.put("over.bin", b"second", media_type="text/html", overwrite=True)
        known = await store.stat("over.bin")
        assert_describes(known, "over.bin", b"second", "text/html")
        assert known.retention is None, "the retention class of the old file is told of the new one"

    @pytest.mark.parametrize("key", ODD_KEYS)
    async def test_odd_names_are_told_as_they_are(self, store: ArtifactStore, key: str) -> None:
        await store.put(key, b"odd", media_type="text/plain")
        assert (await store.stat(key)).key == key
        assert [one.key for one in await listed(store)] == [key], f"{key!r} is listed otherwise"

    async def test_what_was_put_is_listed(self, store: ArtifactStore) -> None:
        keys = {f"{folder}{number}.bin" for folder in ("", "a/", "a/b/", "ab/") for number in range(6)}
        for key in keys:
            await store.put(key, key.encode(), media_type="text/plain", retention="week")
        for prefix in ("", "a/", "a/b/", "a", "a/b/3", "3", "missing/"):
            found = await listed(store, prefix)
            assert sorted(one.key for one in found) == sorted(key for key in keys if key.startswith(prefix)), (
                f"files that begin with {prefix!r} are listed otherwise"
            )
        for one in await listed(store, "a/b/"):
            assert one == await store.stat(one.key), "a listing tells something else of a file than the file itself"

    async def test_a_listing_can_be_bounded_by_age(self, store: ArtifactStore) -> None:
        await store.put("aged.bin", b"aged", media_type="text/plain")
        stored_at = (await store.stat("aged.bin")).stored_at
        assert stored_at is not None, "when the file was stored is not told"
        assert await listed(store, stored_before=stored_at - timedelta(seconds=2)) == [], "a younger file is listed"
        assert [one.key for one in await listed(store, stored_before=stored_at + timedelta(seconds=2))] == [
            "aged.bin"
        ], "an older file is not listed"

    async def test_a_listing_may_be_deleted_while_it_is_read(self, store: ArtifactStore) -> None:
        for number in range(10):
            await store.put(f"old/{number}", b"old", media_type="text/plain")
        async for one in store.list_objects("old/"):
            await store.delete(one.key)
        assert await listed(store) == [], "files are still listed after they were deleted"

    async def test_a_signed_address_is_one_for_everybody_or_there_is_none(self, store: ArtifactStore) -> None:
        await store.put("signed ü+%.bin", b"signed", media_type="application/x-odd")
        if not self.can_sign:
            with pytest.raises(CannotSign):
                await store.sign("signed ü+%.bin", expires_in_s=600)
            return
        url = await store.sign("signed ü+%.bin", expires_in_s=600)
        async with httpx.AsyncClient(trust_env=False) as anybody:
            reply = await anybody.get(url)
        assert reply.status_code == 200, f"a signed address is answered with {reply.status_code}"
        assert reply.content == b"signed", "a signed address leads to something else"
        assert reply.headers["content-type"].startswith("application/x-odd"), "the media type is not told to a reader"
        assert await read(store, "signed ü+%.bin") == b"signed"


async def listed(
    store: ArtifactStore, prefix: str = "", *, stored_before: datetime | None = None
) -> list[StoredObject]:
    """All that a listing gives."""
    return [one async for one in store.list_objects(prefix, stored_before=stored_before)]
