"""What may pass is tried again, a bounded number of times, and said; what cannot pass is told at once."""

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urlsplit

import anyio
import pytest
from attrs import evolve

from emp_core.errors import StorageRefused, StorageUnavailable
from emp_core.jobs.retry import Backoff
from emp_core.storage.azure import AzureStore
from emp_core.storage.azure_access import AzureAccess
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.place import Place
from emp_core.storage.s3 import S3Store
from emp_core.storage.s3_access import S3Access
from emp_core.storage.trying import Patience, persist
from emp_core.testing.link import Link, link_to
from emp_core.testing.object_stores import BlobServer, S3Server

Made = Callable[[Patience], ArtifactStore]
BIG = 12 * 2**20


class Pauses:
    """Waits for nothing, and may do something in the pauses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.then: Link | None = None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.then is not None:
            await self.then.come_up()

    @property
    def patience(self) -> Patience:
        return Patience(attempts=4, backoff=Backoff(base_s=1.0, max_s=5.0), sleep=self)


async def test_what_may_pass_is_tried_again_with_growing_pauses_and_said(caplog: pytest.LogCaptureFixture) -> None:
    pauses, calls = Pauses(), []

    async def call() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise ConnectionError("busy\nsecond line")
        return "done"

    with caplog.at_level(logging.WARNING):
        done = await persist(
            call, patience=pauses.patience, may_pass=lambda _: True, store="azure://art", doing="store a.txt"
        )
    assert (done, len(calls), len(pauses.seconds)) == ("done", 4, 3)
    assert 0 < pauses.seconds[0] < 5
    assert max(pauses.seconds) <= 5
    assert caplog.text.count("the store is asked again") == 3
    assert "second line" not in caplog.text


async def test_it_is_given_up_after_so_many_times() -> None:
    pauses = Pauses()

    async def call() -> str:
        raise ConnectionError("busy")

    with pytest.raises(ConnectionError, match="busy"):
        await persist(call, patience=pauses.patience, may_pass=lambda _: True, store="s", doing="d")
    assert len(pauses.seconds) == 3


async def test_what_cannot_pass_is_told_at_once() -> None:
    pauses = Pauses()

    async def call() -> str:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        await persist(call, patience=pauses.patience, may_pass=lambda _: False, store="s", doing="d")
    assert pauses.seconds == []


@pytest.fixture(params=["azure", "s3"])
async def linked(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Link, Made]]:
    """A store behind a link that can be cut, of each kind."""
    if request.param == "azure":
        blobs = request.getfixturevalue("azurite")
        assert isinstance(blobs, BlobServer)
        container, path = blobs.new_container(), urlsplit(blobs.endpoint).path
        async with link_to(blobs.endpoint.removesuffix(path)) as (link, url):
            azure = AzureAccess.of(blobs.account, blobs.key, endpoint=url + path)
            yield link, lambda patience: AzureStore(Place("azure", container), azure, patience=patience)
    else:
        objects = request.getfixturevalue("s3_server")
        assert isinstance(objects, S3Server)
        bucket = objects.new_bucket()
        async with link_to(objects.endpoint) as (link, url):
            s3 = evolve(S3Access.from_environ(objects.environ), endpoint=url.rstrip("/"))
            yield link, lambda patience: S3Store(Place("s3", bucket), s3, patience=patience)


async def big(link: Link | None = None) -> AsyncIterator[bytes]:
    """A stream of a few blocks, in the middle of which the store may go away."""
    for number in range(BIG // 2**20):
        if link is not None and number == BIG // 2**21:
            await link.go_down()
        yield number.to_bytes(4, "big") * 2**18


@pytest.mark.parametrize("length", ["short", "long"])
async def test_a_store_that_is_away_for_a_moment_is_waited_for(linked: tuple[Link, Made], length: str) -> None:
    link, made = linked
    pauses = Pauses()
    pauses.then = link
    store = made(pauses.patience)
    await store.check()
    if length == "short":
        await link.go_down()
        await store.put("a.bin", b"short", media_type="text/plain")
        wanted = b"short"
    else:
        await store.put("a.bin", big(link), media_type="text/plain")
        wanted = b"".join([chunk async for chunk in big()])
    assert pauses.seconds, "it was not even noticed"
    assert b"".join([chunk async for chunk in store.open("a.bin")]) == wanted
    await store.aclose()


async def test_a_store_that_stays_away_is_unavailable(linked: tuple[Link, Made]) -> None:
    link, made = linked
    pauses = Pauses()
    store = made(pauses.patience)
    await link.go_down()
    with pytest.raises(StorageUnavailable) as told:
        await store.put("a.bin", b"short", media_type="text/plain")
    assert not isinstance(told.value, StorageRefused)
    assert told.value.hint
    assert len(pauses.seconds) == 3
    await link.come_up()
    assert [one async for one in store.list_objects()] == []
    await store.aclose()


async def test_an_upload_whose_answer_was_lost_is_no_conflict_with_itself(linked: tuple[Link, Made]) -> None:
    _, made = linked
    first, again = made(Pauses().patience), made(Pauses().patience)
    one = await first.put("a.bin", b"the same", media_type="text/plain")
    assert await again.put("a.bin", b"the same", media_type="text/plain") == one
    async with anyio.create_task_group() as group:  # two attempts of one job, one of them a zombie
        for store in (first, again):
            group.start_soon(partial(store.put, "b.bin", big(), media_type="text/plain"))
    assert sorted([one.key async for one in first.list_objects()]) == ["a.bin", "b.bin"]
    await first.aclose()
    await again.aclose()
