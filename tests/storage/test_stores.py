"""The stores of a worker: the default one, those with names, and those that jobs bring."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from emp_core.config import Settings
from emp_core.errors import (
    AddressRefused,
    ConfigError,
    InvalidJob,
    NotHere,
    StorageRefused,
    StorageUnavailable,
)
from emp_core.jobs.model import Destination
from emp_core.storage.configured import configured_stores
from emp_core.storage.local import LocalStore
from emp_core.storage.stores import Stores
from emp_core.testing.object_stores import BlobServer, S3Server

SECRET = "c2VjcmV0IGtleQ=="


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(data_dir=folder / "data", **{"store": str(folder / "default"), **more})


def opened(folder: Path, environ: Mapping[str, str] | None = None, **more: Any) -> Stores:
    return Stores.from_settings(settings(folder, **more), environ=environ or {})


def brought(server: BlobServer, container: str, **changed: str) -> Destination:
    account = {"bucket": container, "accountName": server.account, "accountKey": server.key}
    return Destination(storage={**account, "endpoint": server.endpoint, **changed})


def allowing(server: BlobServer) -> dict[str, Any]:
    return {"private_hosts": (urlsplit(server.endpoint).netloc,)}


# -- what the settings may say -----------------------------------------------------------------------------------------


def test_a_store_is_a_url_or_an_object(tmp_path: Path) -> None:
    stores = {"final": {"url": "/final", "cdn": "https://cdn.example.com", "env": {"A": "b"}}, "old": "/old"}
    found = configured_stores(settings(tmp_path, stores=stores))
    assert {name: (one.url, one.cdn, one.env) for name, one in found.items()} == {
        "default": (str(tmp_path / "default"), None, None),
        "final": ("/final", "https://cdn.example.com", {"A": "b"}),
        "old": ("/old", None, None),
    }


def test_the_default_store_may_be_one_of_those_with_names(tmp_path: Path) -> None:
    stores = {"final": {"url": "/final", "cdn": "https://cdn.example.com", "env": {"A": "b"}}}
    found = configured_stores(settings(tmp_path, store="final", stores=stores))
    assert (found["default"].url, found["default"].cdn, found["default"].env) == (
        "/final",
        "https://cdn.example.com",
        {"A": "b"},
    )


def test_the_default_store_may_have_a_public_address(tmp_path: Path) -> None:
    found = configured_stores(settings(tmp_path, store_cdn="https://cdn.example.com/art"))
    assert found["default"].cdn == "https://cdn.example.com/art"


def test_every_mistake_is_told_at_once_and_no_value_repeated(tmp_path: Path) -> None:
    stores = {
        "no url": {"cdn": "https://cdn.example.com"},
        "default": "/x",
        "number": 7,
        "more": {"url": "/x", "key": SECRET},
        "cdn": {"url": "/x", "cdn": f"ftp://{SECRET}"},
        "env": {"url": "/x", "env": {"A": 7, "B": SECRET}},
        "ok": "/x",
    }
    with pytest.raises(ConfigError) as told:
        configured_stores(settings(tmp_path, stores=stores, store_cdn="cdn.example.com"))
    assert sorted(problem.split(": ")[0] for problem in told.value.problems) == [
        "EMP_STORES.cdn.cdn",
        "EMP_STORES.default",
        "EMP_STORES.env.env",
        "EMP_STORES.more.key",
        "EMP_STORES.no url",
        "EMP_STORES.no url",
        "EMP_STORES.number",
        "EMP_STORE_CDN",
    ]
    assert SECRET not in f"{told.value} {told.value!r} {told.value.as_dict()}"


def test_the_settings_never_show_what_stores_are_asked_with() -> None:
    stores = json.dumps({"final": {"url": "azure://final", "env": {"AZURE_STORAGE_KEY": SECRET}}})
    read = Settings.from_env({"EMP_STORES": stores})
    assert configured_stores(read)["final"].env == {"AZURE_STORAGE_KEY": SECRET}
    assert SECRET not in repr(read) + repr(configured_stores(read))


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"a": ' + "[" * 10_000])
def test_stores_that_are_no_json_object_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="EMP_STORES"):
        Settings.from_env({"EMP_STORES": text})


# -- which store a job's outputs go to ---------------------------------------------------------------------------------


async def put(stores: Stores, ctx: Destination | None, key: str = "a.txt") -> str:
    async with stores.of(ctx) as store:
        return (await store.put(key, b"x", media_type="text/plain")).url


async def test_outputs_go_to_the_default_store_or_to_the_one_that_is_named(tmp_path: Path) -> None:
    stores = opened(
        tmp_path, stores={"final": {"url": str(tmp_path / "final"), "cdn": "https://cdn.example.com/final"}}
    )
    for ctx in (None, Destination(), Destination(prefix="a"), Destination(storage={"store": "default"})):
        assert (await put(stores, ctx)).startswith("file:///")
    assert await put(stores, Destination(storage={"store": "final"})) == "https://cdn.example.com/final/a.txt"
    assert (tmp_path / "final" / "a.txt").read_bytes() == b"x"
    await stores.aclose()


async def test_a_name_that_is_not_known_here_may_be_known_elsewhere(tmp_path: Path) -> None:
    stores = opened(tmp_path, stores={"broken": "azure://container", "odd": "gs://bucket"})
    for name in ("final", "broken", "odd"):
        with pytest.raises(NotHere):
            await put(stores, Destination(storage={"store": name}))
    assert [repr(one) for one in stores.named()] == []
    await stores.aclose()


async def test_a_named_store_that_cannot_be_written_is_known_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stores = opened(tmp_path, stores={"broken": str(tmp_path / "file" / "below")})
    with pytest.raises(StorageUnavailable):
        async with stores.of(Destination(storage={"store": "broken"})):
            raise AssertionError("the work was begun")
    await stores.aclose()


async def test_a_store_has_variables_of_its_own_and_sees_no_others(
    tmp_path: Path, azurite: BlobServer, s3_server: S3Server
) -> None:
    container, bucket = azurite.new_container(), s3_server.new_bucket()
    described = {
        "blobs": {"url": f"azure://{container}", "env": dict(azurite.environ)},
        "objects": f"s3://{bucket}",
        "without": {"url": f"azure://{container}", "env": {}},
    }
    stores = opened(tmp_path, {**s3_server.environ, **azurite.environ}, stores=described)
    assert (await put(stores, Destination(storage={"store": "blobs"}))).startswith(azurite.endpoint)
    assert (await put(stores, Destination(storage={"store": "objects"}))).startswith(s3_server.endpoint)
    with pytest.raises(NotHere):
        await put(stores, Destination(storage={"store": "without"}))
    await stores.aclose()


# -- stores that jobs bring --------------------------------------------------------------------------------------------


async def test_a_job_brings_a_container_with_its_account(tmp_path: Path, azurite: BlobServer) -> None:
    container = azurite.new_container()
    stores = opened(tmp_path, **allowing(azurite))
    assert await put(stores, brought(azurite, container), "j/a.txt") == f"{azurite.endpoint}/{container}/j/a.txt"
    public = brought(azurite, container, cdnUrl="https://cdn.example.com/")
    assert await put(stores, public, "j/b.txt") == "https://cdn.example.com/j/b.txt"
    assert azurite.blobs(container) == ["j/a.txt", "j/b.txt"]
    await stores.aclose()


async def test_jobs_that_bring_the_same_share_one_store_as_long_as_one_of_them_runs(
    tmp_path: Path, azurite: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emp_core.storage.azure import AzureStore

    checked: list[object] = []
    closed: list[object] = []
    check, aclose = AzureStore.check, AzureStore.aclose

    async def counted_check(store: AzureStore) -> None:
        checked.append(store)
        await check(store)

    async def counted_close(store: AzureStore) -> None:
        closed.append(store)
        await aclose(store)

    monkeypatch.setattr(AzureStore, "check", counted_check)
    monkeypatch.setattr(AzureStore, "aclose", counted_close)
    ctx = brought(azurite, azurite.new_container())
    stores = opened(tmp_path, **allowing(azurite))
    used: list[object] = []
    all_in, done = anyio.Event(), anyio.Event()

    async def job() -> None:
        async with stores.of(ctx) as store:
            used.append(store)
            if len(used) == 5:
                all_in.set()
            await done.wait()

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(job)
        await all_in.wait()
        assert closed == []
        done.set()
    assert len({id(store) for store in used}) == len(checked) == 1
    assert closed == checked
    async with stores.of(ctx) as store:
        assert store is not used[0]
    await stores.aclose()


@pytest.mark.parametrize("wrong", ["accountKey", "bucket", "accountName"])
async def test_a_store_that_is_refused_fails_the_job_before_it_begins(
    tmp_path: Path, azurite: BlobServer, wrong: str
) -> None:
    value = {"accountKey": SECRET, "bucket": "nobody-made-this", "accountName": "nobody7"}[wrong]
    stores = opened(tmp_path, **allowing(azurite))
    with pytest.raises(InvalidJob) as told:
        async with stores.of(brought(azurite, azurite.new_container(), **{wrong: value})):
            raise AssertionError("the work was begun")
    assert isinstance(told.value.__cause__, StorageRefused)
    shown = f"{told.value} {told.value!r} {told.value.as_dict()} {told.value.__cause__}"
    assert not [secret for secret in (SECRET, azurite.key) if secret in shown]
    await stores.aclose()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:10000/devstoreaccount1",
        "http://169.254.169.254/metadata",
        "http://10.0.0.7/account",
        "http://[::1]:10000/account",
        "http://localhost:10000/account",
        "http://2130706433/account",
    ],
)
async def test_an_endpoint_that_a_job_brings_may_not_be_private(tmp_path: Path, endpoint: str) -> None:
    storage = {"bucket": "art", "accountName": "studio7", "accountKey": SECRET, "endpoint": endpoint}
    stores = opened(tmp_path)
    with pytest.raises(AddressRefused):
        async with stores.of(Destination(storage=storage)):
            raise AssertionError("the work was begun")
    await stores.aclose()


async def test_an_endpoints_name_that_leads_into_a_private_network_is_refused(
    tmp_path: Path, azurite: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(azurite.endpoint).port
    asked: list[str] = []

    async def resolved(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolved)
    ctx = brought(azurite, azurite.new_container(), endpoint=f"http://blobs.example.com:{port}/{azurite.account}")
    stores = opened(tmp_path)
    with pytest.raises(AddressRefused):
        async with stores.of(ctx):
            raise AssertionError("the work was begun")
    assert asked == ["blobs.example.com"]
    await stores.aclose()
    allowed = opened(tmp_path, private_hosts=("blobs.example.com",))
    async with allowed.of(ctx):
        pass
    await allowed.aclose()


async def test_nothing_of_the_key_is_kept_when_nobody_needs_it(tmp_path: Path, azurite: BlobServer) -> None:
    stores = opened(tmp_path, **allowing(azurite))
    ctx = brought(azurite, azurite.new_container())
    async with stores.of(ctx) as store:
        assert azurite.key not in f"{store!r} {vars(stores)!r}"
    assert azurite.key not in repr(vars(stores))
    assert not stores._brought
    await stores.aclose()


async def test_closing_closes_all_though_one_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    class Odd(LocalStore):
        async def aclose(self) -> None:
            closed.append(self.root.name)
            if self.root.name == "a":
                raise RuntimeError("it will not close")

    stores = Stores.from_settings(
        settings(tmp_path, stores={"one": "odd://x/a", "two": "odd://x/b"}),
        openers={"odd": lambda url, _: Odd(tmp_path / url.rpartition("/")[2])},
        environ={},
    )
    assert len(list(stores.named())) == 2
    await stores.aclose()
    assert closed == ["a", "b"]
