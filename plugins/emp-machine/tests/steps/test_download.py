"""Files of a manifest are there whole and right, or not at all."""

import errno
import os
import shutil
from pathlib import Path

import anyio
import httpx
import pytest
from emp_machine.steps import Downloads, read_manifest
from emp_machine.steps.fetching import Fetching
from emp_machine.testing.file_server import file_server

from emp_core.errors import ConfigError, InstallError

WAITED: list[float] = []


@pytest.fixture(autouse=True)
def waited() -> list[float]:
    WAITED.clear()
    return WAITED


async def note(seconds: float) -> None:
    WAITED.append(seconds)


def downloads(folder: Path, *entries: object, environ: dict[str, str] | None = None) -> Downloads:
    return Downloads("fetch", folder, read_manifest(list(entries), "models"), environ=environ or {}, sleep=note)


async def test_files_come_to_their_places_and_are_reported_with_their_checksums(files, telling, tmp_path):
    one, two = files.entry("a/one.bin", b"1" * 3_000_000), files.entry("two.bin", b"2")
    step = downloads(tmp_path, one, two)
    assert not await step.is_done()
    await step.do(telling)
    assert await step.is_done()
    assert (tmp_path / "a" / "one.bin").read_bytes() == b"1" * 3_000_000
    assert telling.pins == {one["url"]: f"sha256:{one['sha256']}", two["url"]: f"sha256:{two['sha256']}"}
    assert telling.fractions == sorted(telling.fractions)
    assert telling.fractions[-1] == 1.0
    assert not list(tmp_path.rglob("*.part"))


async def test_what_is_there_is_not_fetched_again(files, telling, tmp_path):
    step = downloads(tmp_path, files.entry("one.bin", b"1"))
    await step.do(telling)
    files.requests.clear()
    await step.do(telling)
    assert files.requests == []


async def test_a_file_that_somebody_else_put_there_counts_if_it_is_right(files, telling, tmp_path):
    entry = files.entry("one.bin", b"right")
    (tmp_path / "one.bin").write_bytes(b"right")
    assert await downloads(tmp_path, entry).is_done()
    (tmp_path / "one.bin").write_bytes(b"wrong")
    assert not await downloads(tmp_path, entry).is_done()


async def test_a_download_that_is_cut_off_goes_on_where_it_was(files, telling, tmp_path):
    content = os.urandom(5_000_000)
    entry = files.entry("one.bin", content)
    files.cut_after = 2_000_000
    await downloads(tmp_path, entry).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == content
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, _, asked in files.requests if asked]
    assert starts == sorted(starts)
    assert len(starts) >= 2


async def test_what_another_run_left_is_taken_up(files, telling, tmp_path):
    content = os.urandom(2_000_000)
    entry = files.entry("one.bin", content)
    step = downloads(tmp_path, entry)
    [read] = step.entries
    async with httpx.AsyncClient() as client:
        part = Fetching(client, tmp_path, {}, telling).part(read)
    part.write_bytes(content[:1_000_000])
    await step.do(telling)
    assert ("GET", "/one.bin", "bytes=1000000-") in files.requests
    assert (tmp_path / "one.bin").read_bytes() == content


async def test_what_was_begun_from_another_address_goes_when_the_file_is_there(files, telling, tmp_path):
    other, one = files.entry("one.safetensors.bin", b"2"), files.entry("one.safetensors", b"1")
    async with httpx.AsyncClient() as client:
        fetching = Fetching(client, tmp_path, {}, telling)
        [kept] = downloads(tmp_path, other).entries
        fetching.part(kept).write_bytes(b"of another file")
        [old] = downloads(tmp_path, {**one, "url": f"{files.url}/old"}).entries
        fetching.part(old).write_bytes(b"gigabytes that nobody would ever take up")
    await downloads(tmp_path, one).do(telling)
    assert [path.name for path in tmp_path.glob(".*.part")] == [fetching.part(kept).name]


async def test_a_server_without_ranges_begins_anew(files, telling, tmp_path):
    content = os.urandom(1_500_000)
    entry = files.entry("one.bin", content)
    files.ranges = False
    files.statuses = [503, 502]
    await downloads(tmp_path, entry).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == content


async def test_a_file_that_changed_on_the_server_is_not_patched_together(files, telling, tmp_path):
    entry = {"url": f"{files.url}/one.bin", "path": "one.bin"}
    files.files["/one.bin"] = b"a" * 1_000_000
    files.cut_after = 400_000
    requests = files.requests

    class Changing(list[tuple[str, str, str]]):
        def append(self, request):
            super().append(request)
            if len([one for one in self if one[0] == "GET"]) == 2:
                files.files["/one.bin"] = b"b" * 1_000_000
                files.cut_after = None

    files.requests = Changing(requests)
    await downloads(tmp_path, entry).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == b"b" * 1_000_000


async def test_a_wrong_checksum_is_an_error_and_kept_aside_and_the_others_go_on(files, telling, tmp_path):
    wrong = files.entry("wrong.bin", b"something else") | {"sha256": "0" * 64}
    right = files.entry("right.bin", b"right")
    step = downloads(tmp_path, wrong, right)
    with pytest.raises(InstallError, match=r"1 of 2 files could not be fetched: wrong\.bin: its checksum is") as caught:
        await step.do(telling)
    assert caught.value.details["files"].keys() == {"wrong.bin"}
    assert (tmp_path / "right.bin").read_bytes() == b"right"
    assert (tmp_path / "wrong.bin.wrong").read_bytes() == b"something else"
    assert not (tmp_path / "wrong.bin").exists()
    assert not await step.is_done()


async def test_a_wrong_size_is_found_before_it_is_fetched(files, telling, tmp_path):
    entry = files.entry("one.bin", b"12345") | {"size": 4}
    with pytest.raises(InstallError, match="the server has 5 bytes, and the manifest says 4"):
        await downloads(tmp_path, entry).do(telling)


async def test_a_file_that_is_not_there_is_told_and_not_tried_again(files, telling, tmp_path, waited):
    with pytest.raises(InstallError, match="answers 404"):
        await downloads(tmp_path, {"url": f"{files.url}/none", "path": "none"}).do(telling)
    assert waited == []


async def test_a_server_in_trouble_is_given_time_and_then_up(files, telling, tmp_path, waited):
    files.statuses = [503] * 20
    with pytest.raises(InstallError, match="the server answers 503"):
        await downloads(tmp_path, files.entry("one.bin", b"1")).do(telling)
    assert len(waited) == 4
    assert waited[-1] > waited[0] > 0


async def test_a_token_is_sent_and_its_absence_told(files, telling, tmp_path):
    files.token = "hf_secret"
    entry = files.entry("one.bin", b"1", token_env="HF_TOKEN")
    with pytest.raises(InstallError, match="HF_TOKEN is not set"):
        await downloads(tmp_path, entry).do(telling)
    await downloads(tmp_path, entry, environ={"HF_TOKEN": "hf_secret"}).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == b"1"
    assert not any("hf_secret" in line for line in telling.lines)


async def test_a_token_does_not_follow_to_another_server(files, telling, tmp_path):
    """Registries of models lead on to stores, whose logs others read."""
    with file_server() as store:
        store.files["/one.bin"] = b"1"
        files.moved["/one.bin"] = f"{store.url}/one.bin"
        entry = {"url": f"{files.url}/one.bin", "path": "one.bin", "token_env": "HF_TOKEN"}
        await downloads(tmp_path, entry, environ={"HF_TOKEN": "hf_secret"}).do(telling)
        assert (tmp_path / "one.bin").read_bytes() == b"1"
        assert set(files.logins) == {"Bearer hf_secret"}
        assert store.logins == []


async def test_a_disk_without_room_is_told_before_anything_is_fetched(files, telling, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(free=10**6))
    with pytest.raises(InstallError, match="0 MiB free, and 4 MiB are to be fetched"):
        await downloads(tmp_path, files.entry("one.bin", b"1" * 5_000_000)).do(telling)
    assert [method for method, _, _ in files.requests] == []


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


async def test_a_disk_that_fills_up_keeps_what_came(files, telling, tmp_path, monkeypatch):
    entry = files.entry("one.bin", b"1" * 5_000_000)
    whole = anyio.open_file

    async def full(path, mode):
        file = await whole(path, mode)
        write = file.write

        async def limited(block):
            if await file.tell() > 2_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return await write(block)

        monkeypatch.setattr(file, "write", limited, raising=False)
        return file

    with monkeypatch.context() as patched:
        patched.setattr(anyio, "open_file", full)
        with pytest.raises(InstallError, match="the disk is full"):
            await downloads(tmp_path, entry).do(telling)
    [part] = tmp_path.glob(".one.bin.*.part")
    assert part.stat().st_size > 2_000_000
    await downloads(tmp_path, entry).do(telling)
    assert (tmp_path / "one.bin").stat().st_size == 5_000_000


async def test_an_address_that_answers_only_get_is_fetched(files, telling, tmp_path):
    entry = files.entry("one.bin", b"signed")
    files.heads = False
    del entry["size"]
    await downloads(tmp_path, entry).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == b"signed"


async def test_another_address_without_a_checksum_is_another_file(files, telling, tmp_path):
    files.files |= {"/v1/one.bin": b"old", "/v2/one.bin": b"new"}
    old, new = ({"url": f"{files.url}/{version}/one.bin", "path": "one.bin"} for version in ("v1", "v2"))
    await downloads(tmp_path, old).do(telling)
    assert await downloads(tmp_path, {**old, "url": f"{old['url']}?signature=another"}).is_done()
    files.statuses = [403]
    with pytest.raises(InstallError, match="answers 403"):
        await downloads(tmp_path, new).do(telling)
    assert new["url"] not in telling.pins, "it did not come from there"
    assert not await downloads(tmp_path, new).is_done()
    assert await downloads(tmp_path, old).is_done()
    await downloads(tmp_path, new).do(telling)
    assert (tmp_path / "one.bin").read_bytes() == b"new"
    assert await downloads(tmp_path, new).is_done()


async def test_a_file_that_somebody_put_there_by_hand_needs_no_address(files, tmp_path):
    (tmp_path / "one.bin").write_bytes(b"by hand")
    assert await downloads(tmp_path, {"url": f"{files.url}/one.bin", "path": "one.bin"}).is_done()


async def test_a_file_that_cannot_be_written_does_not_keep_the_others_from_coming(files, telling, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    (tmp_path / "full.bin").mkdir()
    entries = [files.entry(path, b"1") for path in ("taken/one.bin", "full.bin", "two.bin")]
    with pytest.raises(InstallError, match="2 of 3 files could not be fetched") as caught:
        await downloads(tmp_path, *entries).do(telling)
    assert caught.value.details["files"].keys() == {"taken/one.bin", "full.bin"}
    assert (tmp_path / "two.bin").read_bytes() == b"1"


async def test_a_file_is_not_read_again_where_times_lost_their_fractions(files, telling, tmp_path, monkeypatch):
    step = downloads(tmp_path, files.entry("one.bin", b"1"))
    await step.do(telling)
    at = (tmp_path / "one.bin").stat().st_mtime_ns // 10**9
    os.utime(tmp_path / "one.bin", (at, at))
    monkeypatch.setattr("emp_machine.steps.download.sha256_of", lambda file: pytest.fail(f"{file} is read"))
    assert await step.is_done()


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out", ""])
def test_a_path_never_leaves_the_folder(path):
    with pytest.raises(ConfigError, match="cannot be used"):
        read_manifest([{"url": "https://host/x", "path": path}], "models")


def test_every_mistake_of_a_manifest_is_told_with_its_place(tmp_path):
    manifest = tmp_path / "models.json"
    manifest.write_text(
        '{"models": [{"url": "file:///etc/passwd", "path": "a"}, {"url": "https://h/x", "path": "b", "size": -1}, 3]}'
    )
    with pytest.raises(ConfigError) as caught:
        read_manifest(str(manifest), "models")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "models[0].url",
        "models[1].size",
        "models[2]",
    ]


def test_nothing_is_an_empty_manifest():
    assert read_manifest(None, "models") == read_manifest("", "models") == read_manifest([], "models") == ()
