"""A store that is right, and its suite: others are wrong in one way each."""

from collections.abc import AsyncIterable
from pathlib import Path
from typing import ClassVar

import pytest

from emp_core.errors import ArtifactNotFound
from emp_core.storage.local import LocalStore
from emp_core.testing.conformance.store import ListPlace, MakeStore, StoreConformance

__all__ = ["MIB", "Data", "KeptStore", "KeptStoreConformance"]

SECRET = "open sesame"
MIB = 2**20

Data = bytes | AsyncIterable[bytes]


class KeptStore(LocalStore):
    """A store that is right: a folder, with a password."""

    def __init__(self, root: Path, password: str = SECRET) -> None:
        super().__init__(root)
        self.password = password

    async def is_there(self, key: str) -> bool:
        try:
            await self.stat(key)
        except ArtifactNotFound:
            return False
        return True


class KeptStoreConformance(StoreConformance):
    """The suite for a kind of `KeptStore`."""

    store_class: ClassVar[type[KeptStore]] = KeptStore
    secrets: ClassVar[tuple[str, ...]] = (SECRET,)
    big_bytes: ClassVar[int] = 16 * MIB
    memory_bytes: ClassVar[int] = 8 * MIB

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: self.store_class(tmp_path / "store")

    @pytest.fixture
    def make_broken_store(self, tmp_path: Path) -> MakeStore:
        (tmp_path / "file").touch()
        return lambda: self.store_class(tmp_path / "file" / "store")

    @pytest.fixture
    def list_place(self, tmp_path: Path) -> ListPlace:
        async def names() -> list[str]:
            return [str(path) for path in (tmp_path / "store").rglob("*") if path.is_file()]

        return names
