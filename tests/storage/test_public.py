"""A store behind a content delivery network is a store like any other, with public addresses."""

from pathlib import Path

import pytest

from emp_core.storage.local import LocalStore
from emp_core.storage.public import PublicStore
from emp_core.testing.conformance.store import MakeStore, StoreConformance


class TestPublicStore(StoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: PublicStore(LocalStore(tmp_path / "art"), "https://cdn.example.com/art/")


async def test_addresses_are_below_the_public_base(tmp_path: Path) -> None:
    store = PublicStore(LocalStore(tmp_path), "https://cdn.example.com/art/")
    stored = await store.put("a b/ü?#.png", b"x", media_type="image/png")
    assert stored.url == "https://cdn.example.com/art/a%20b/%C3%BC%3F%23.png"
    assert (await store.stat("a b/ü?#.png")).url == stored.url
    assert [one.url async for one in store.list_objects()] == [stored.url]
