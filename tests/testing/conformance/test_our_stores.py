"""The stores of the core keep to what is asked of every store."""

from pathlib import Path

import pytest

from emp_core.storage.local import LocalStore
from emp_core.testing.conformance.store import ListPlace, MakeStore, StoreConformance


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: LocalStore(tmp_path / "store")

    @pytest.fixture
    def make_broken_store(self, tmp_path: Path) -> MakeStore:
        (tmp_path / "file").write_text("no folder")
        return lambda: LocalStore(tmp_path / "file" / "store")

    @pytest.fixture
    def list_place(self, tmp_path: Path) -> ListPlace:
        async def names() -> list[str]:
            return [str(path) for path in (tmp_path / "store").rglob("*") if path.is_file()]

        return names
