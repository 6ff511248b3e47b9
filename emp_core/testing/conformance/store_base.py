"""What the parts of `StoreConformance` have in common: what a subclass gives."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import ClassVar

import pytest

from emp_core.storage.interface import ArtifactStore

__all__ = ["ListPlace", "MakeStore", "StoreRules"]

MakeStore = Callable[[], ArtifactStore]
"""Makes a store. All stores that one of these makes are one and the same place: what one puts, the other opens."""
ListPlace = Callable[[], Awaitable[Iterable[str]]]
"""Lists the names of all that lies in the place."""


class StoreRules:
    """What a subclass gives. See `emp_core.testing.conformance.store.StoreConformance`."""

    pytestmark = pytest.mark.anyio

    secrets: ClassVar[tuple[str, ...]] = ()
    can_sign: ClassVar[bool] = False
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
