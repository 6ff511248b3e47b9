from typing import ClassVar

import pytest

from emp_core.jobs.retry import Backoff
from emp_core.storage.azure import AzureStore
from emp_core.storage.azure_access import AzureAccess
from emp_core.storage.place import Place
from emp_core.storage.trying import Patience
from emp_core.testing.conformance.store import ListPlace, MakeStore, StoreConformance
from emp_core.testing.object_stores import AZURITE_KEY, BlobServer

AT_ONCE = Patience(attempts=2, backoff=Backoff(base_s=0))


@pytest.fixture
def container(azurite: BlobServer) -> str:
    return azurite.new_container()


class TestAzureStore(StoreConformance):
    can_sign: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = (AZURITE_KEY,)

    @pytest.fixture
    def make_store(self, azurite: BlobServer, container: str) -> MakeStore:
        return lambda: AzureStore.from_url(f"azure://{container}/some/folder", azurite.environ)

    @pytest.fixture
    def make_broken_store(self, azurite: BlobServer) -> MakeStore:
        access = AzureAccess.of(azurite.account, azurite.key, endpoint=f"http://127.0.0.1:9/{azurite.account}")
        return lambda: AzureStore(Place("azure", "container"), access, patience=AT_ONCE)

    @pytest.fixture
    def list_place(self, azurite: BlobServer, container: str) -> ListPlace:
        async def names() -> list[str]:
            return azurite.blobs(container)

        return names
