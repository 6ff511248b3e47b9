from typing import ClassVar

import httpx
import pytest
from attrs import evolve

from emp_core.jobs.retry import Backoff
from emp_core.storage.place import Place
from emp_core.storage.s3 import S3Store
from emp_core.storage.s3_access import S3Access
from emp_core.storage.trying import Patience
from emp_core.testing.conformance.store import ListPlace, MakeStore, StoreConformance
from emp_core.testing.object_stores import S3Server

AT_ONCE = Patience(attempts=2, backoff=Backoff(base_s=0))


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.new_bucket()


class TestS3Store(StoreConformance):
    can_sign: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = ("moto-takes-any-secret",)

    @pytest.fixture
    def make_store(self, s3_server: S3Server, bucket: str) -> MakeStore:
        return lambda: S3Store.from_url(f"s3://{bucket}/some/folder", s3_server.environ)

    @pytest.fixture
    def make_broken_store(self, s3_server: S3Server) -> MakeStore:
        access = evolve(S3Access.from_environ(s3_server.environ), endpoint="http://127.0.0.1:9")
        return lambda: S3Store(Place("s3", "bucket"), access, patience=AT_ONCE)

    @pytest.fixture
    def list_place(self, s3_server: S3Server, bucket: str) -> ListPlace:
        async def names() -> list[str]:
            async with httpx.AsyncClient(base_url=f"{s3_server.endpoint}/{bucket}", trust_env=False) as client:
                return [(await client.get("")).text, (await client.get("?uploads")).text]

        return names
