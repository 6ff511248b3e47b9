"""Files on the command line: handed over to jobs, and outputs brought back."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from attrs import evolve

from emp_core.cli.saving import check_folder, save_outputs
from emp_core.config import Settings
from emp_core.errors import StorageError, StorageUnavailable
from emp_core.jobs.model import Destination, Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.azure import AzureStore
from emp_core.storage.local import LocalStore
from emp_core.testing.object_stores import BlobServer
from tests.connectors.web import serving

from .conftest import Emp

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
LARGE = PNG + bytes(200_000)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "my cat.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(LARGE)
    return path


def told(name: str, data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    return {
        "name": name,
        "media_type": media_type,
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def data_of(on_hub: Emp, *arguments: str, stdin: bytes = b"", **more: str) -> Any:
    ended = on_hub("submit", "echo", *arguments, "--wait", "--json", stdin=stdin, environ=more)
    assert ended.code == 0, ended.err + ended.out
    return ended.data["result"]["data"]


def payload_of(on_hub: Emp, *arguments: str, stdin: bytes = b"", **more: str) -> Any:
    ended = on_hub("submit", "nosuch", *arguments, "--json", stdin=stdin, environ=more)
    assert ended.code == 0, ended.out
    job = ended.data
    assert on_hub("jobs", "cancel", job["id"]).code == 0
    return job["payload"]


def test_a_small_file_travels_in_the_payload(on_hub: Emp, cat: Path):
    assert data_of(on_hub, "-p", f"in.image=@{cat}", "-p", "text=a cat") == {
        "in": {"image": told("my cat.png", PNG)},
        "text": "a cat",
    }
    assert payload_of(on_hub, "-p", f"image=@{cat}")["image"] == {
        "$input": {"base64": f"({len(PNG)} bytes)", "name": "my cat.png"}
    }


def test_what_comes_from_stdin_is_a_file_too(on_hub: Emp):
    assert data_of(on_hub, "-p", "image=@-", stdin=PNG) == {"image": told("input.png", PNG)}


def test_a_text_that_begins_with_an_at_sign_is_written_with_two_or_as_json(on_hub: Emp):
    assert data_of(on_hub, "-p", "a=@@home", "-p", 'b="@home"', "-p", "c=x@y") == {
        "a": "@home",
        "b": "@home",
        "c": "x@y",
    }


def test_a_large_file_goes_through_the_store_under_its_checksum(on_hub: Emp, large: Path, tmp_path: Path):
    store = tmp_path / "store"
    payloads = [payload_of(on_hub, "-p", f"image=@{large}", EMP_STORE=str(store)) for _ in range(2)]
    assert payloads[0] == payloads[1]
    said = payloads[0]["image"]["$input"]
    assert (said["name"], said["sha256"]) == ("large.png", hashlib.sha256(LARGE).hexdigest())
    assert said["artifact"].startswith("inputs/nobody/")
    assert (store / said["artifact"]).read_bytes() == LARGE
    theirs = payload_of(on_hub, "-p", f"image=@{large}", "--customer", "alice", EMP_STORE=str(store))
    assert theirs["image"]["$input"]["artifact"] != said["artifact"]


def test_without_a_store_a_file_travels_in_the_payload_as_far_as_it_takes_it(on_hub: Emp, large: Path):
    assert data_of(on_hub, "-p", f"image=@{large}") == {"image": told("large.png", LARGE)}
    ended = on_hub("submit", "echo", "-p", f"image=@{large}", "--json", EMP_MAX_PAYLOAD_BYTES="100000")
    assert ended.code == 2
    assert ended.error["code"] == "payload_too_large"
    assert "EMP_STORE" in ended.error["hint"]


def test_files_that_cannot_be_read_are_listed_at_once(on_hub: Emp, tmp_path: Path):
    (tmp_path / "empty").touch()
    ended = on_hub(
        *("submit", "echo", "--json", "-p", "a=@missing.png", "-p", f"b=@{tmp_path}"),
        *("-p", f"c=@{tmp_path / 'empty'}", "-p", "d=@-", "-p", "e=@-"),
        stdin=PNG,
    )
    assert ended.code == 2
    assert [problem.split(":")[0] for problem in ended.error["problems"]] == [
        "-p a=@missing.png",
        f"-p b=@{tmp_path}",
        f"-p c=@{tmp_path / 'empty'}",
        "-p e=@-",
    ]


def test_outputs_are_copied_into_a_folder(on_hub: Emp, tmp_path: Path):
    folder = tmp_path / "out" / "put"
    arguments = ("submit", "echo", "-p", '$echo.artifact={"name": "a/b c.txt", "text": "contents"}', "--output")
    ended = on_hub(*arguments, str(folder))
    assert ended.code == 0
    assert (folder / "b c.txt").read_text() == "contents"
    assert f"Saved      {folder / 'b c.txt'}" in ended.err
    assert on_hub(*arguments, str(folder)).code == 0
    assert [path.name for path in folder.iterdir()] == ["b c.txt"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_submitted(on_hub: Emp, tmp_path: Path):
    (tmp_path / "file").touch()
    before = on_hub("jobs", "ls", "--json").data["counts"]
    ended = on_hub("submit", "echo", "--output", str(tmp_path / "file" / "out"), "--json")
    assert ended.code == 2
    assert on_hub("jobs", "ls", "--json").data["counts"] == before


def job_with(*artifacts: dict[str, Any]) -> Job:
    result = {"success": True, "data": {}, "artifacts": list(artifacts)}
    return Job("j", "echo", "echo", JobState.COMPLETED, requirement=Requirement.plain("echo"), result=result)


def output(name: str, url: str, data: bytes = b"") -> dict[str, Any]:
    return {"name": name, "url": url, "sha256": hashlib.sha256(data).hexdigest() if data else ""}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", store=str(tmp_path / "store"))


async def saved(job: Job, folder: Path, settings: Settings) -> dict[str, bytes]:
    check_folder(folder)
    return {path.name: path.read_bytes() for path in await save_outputs(job, folder, settings)}


async def test_outputs_of_one_name_do_not_replace_each_other_nor_what_is_there(
    tmp_path: Path, settings: Settings
) -> None:
    store = LocalStore(tmp_path / "store")
    one = await store.put("j/1-0-a.txt", b"one", media_type="text/plain")
    two = await store.put("j/1-1-a.txt", b"two", media_type="text/plain")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_bytes(b"mine")
    job = job_with(output("a.txt", one.url, b"one"), output("a.txt", two.url, b"two"))
    assert await saved(job, tmp_path / "out", settings) == {"a (1).txt": b"one", "a (2).txt": b"two"}
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../../a.txt", "/etc/a.txt", "..\\a.txt", "sub/a.txt"])
async def test_an_outputs_name_never_leads_out_of_the_folder(tmp_path: Path, settings: Settings, name: str) -> None:
    stored = await LocalStore(tmp_path / "store").put("j/1-0-a.txt", b"one", media_type="text/plain")
    assert await saved(job_with(output(name, stored.url)), tmp_path / "out", settings) == {"a.txt": b"one"}


async def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, settings: Settings) -> None:
    stored = await LocalStore(tmp_path / "store").put("j/1-0-a.txt", b"one", media_type="text/plain")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "target")
    job = job_with(output("a.txt", stored.url, b"one"))
    assert await saved(job, tmp_path / "out", settings) == {"a (1).txt": b"one"}
    assert not (tmp_path / "target").exists()


async def test_outputs_are_downloaded_where_only_their_address_is_known(tmp_path: Path, settings: Settings) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=PNG) if request.path == "/cat.png" else web.Response(status=404)

    async with serving(answer) as base:
        job = job_with(output("cat.png", f"{base}/cat.png?sig=geheim", PNG))
        assert await saved(job, tmp_path / "out", settings) == {"cat.png": PNG}
        with pytest.raises(StorageError, match="answered 404") as caught:
            await saved(job_with(output("dog.png", f"{base}/dog.png?sig=geheim")), tmp_path / "out", settings)
        assert "geheim" not in str(caught.value)
        with pytest.raises(StorageError, match="checksum is another"):
            await saved(job_with(output("b.png", f"{base}/cat.png", b"else")), tmp_path / "out", settings)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.png"]


async def test_an_output_that_cannot_be_had_from_here_is_told_with_what_to_do(
    tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(StorageError, match="EMP_STORE"):
        await saved(job_with(output("a.png", "azure://container/j/1-0-a.png")), tmp_path / "out", settings)


async def test_outputs_in_a_store_of_the_jobs_own_are_read_with_the_key_that_it_came_with(
    tmp_path: Path, settings: Settings, azurite: BlobServer
) -> None:
    container = azurite.new_container()
    store = AzureStore.from_url(f"azure://{container}", azurite.environ)
    stored = await store.put("j/1-0-cat.png", PNG, media_type="image/png")
    await store.aclose()
    job = job_with(output("cat.png", stored.url, PNG))
    with pytest.raises(StorageUnavailable, match="answered"):
        await saved(job, tmp_path / "without", settings)
    account = {"bucket": container, "accountName": azurite.account, "accountKey": azurite.key}
    ctx = Destination(storage={**account, "endpoint": azurite.endpoint})
    allowed = evolve(settings, private_hosts=(urlsplit(azurite.endpoint).netloc,))
    assert [path.read_bytes() for path in await save_outputs(job, tmp_path / "without", allowed, ctx)] == [PNG]
