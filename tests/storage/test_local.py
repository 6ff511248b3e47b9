import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio
import pytest

from emp_core.errors import ArtifactExists, ArtifactNotFound, CannotSign, StorageUnavailable, UnsafeName
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: LocalStore, key: str) -> bytes:
    return b"".join([chunk async for chunk in store.open(key)])


def files(root: Path) -> list[str]:
    """What lies in a store, without what the store knows of it."""
    found = [str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()]
    return sorted(name for name in found if not name.startswith(".emp/"))


def test_it_is_an_artifact_store(store: LocalStore) -> None:
    assert isinstance(store, ArtifactStore)


@pytest.mark.parametrize("data", [b"", b"cat", b"x" * 1_000_000])
async def test_what_is_put_is_read_back_with_its_size_and_digest(store: LocalStore, data: bytes) -> None:
    for key, given in (("a/whole.bin", data), ("a/stream.bin", stream(data[:7], b"", data[7:]))):
        stored = await store.put(key, given, media_type="image/png")
        assert (stored.key, stored.media_type, stored.size_bytes) == (key, "image/png", len(data))
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert await read(store, key) == data
    assert files(store.root) == ["a/stream.bin", "a/whole.bin"]


async def test_the_url_leads_to_the_file_whatever_its_name(store: LocalStore) -> None:
    stored = await store.put("ünï/a b#c?%.png", b"cat", media_type="image/png")
    assert await anyio.Path(unquote(urlsplit(stored.url).path)).read_bytes() == b"cat"


async def test_a_stream_of_many_small_chunks_is_joined_in_order(store: LocalStore) -> None:
    chunks = [bytes([n % 256]) * 1000 for n in range(1000)]
    await store.put("many", stream(*chunks), media_type="x/y")
    assert await read(store, "many") == b"".join(chunks)


async def test_other_bytes_under_the_same_name_are_refused_and_the_same_are_fine(store: LocalStore) -> None:
    first = await store.put("cat", b"cat", media_type="x/y")
    assert await store.put("cat", b"cat", media_type="x/y") == first
    with pytest.raises(ArtifactExists):
        await store.put("cat", b"dog", media_type="x/y")
    assert await read(store, "cat") == b"cat"
    await store.put("cat", b"dog", media_type="x/y", overwrite=True)
    assert await read(store, "cat") == b"dog"
    assert files(store.root) == ["cat"]


async def test_of_two_that_write_one_name_at_once_one_wins_whole(store: LocalStore) -> None:
    outcomes: list[str] = []

    async def put(data: bytes) -> None:
        try:
            await store.put("one", stream(*[data] * 50), media_type="x/y")
            outcomes.append("stored")
        except ArtifactExists:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for letter in (b"a", b"b", b"c", b"d"):
            group.start_soon(put, letter * 10_000)
    assert sorted(outcomes) == ["refused", "refused", "refused", "stored"]
    assert len(set(await read(store, "one"))) == 1
    assert len(await read(store, "one")) == 500_000
    assert files(store.root) == ["one"]


async def test_a_file_system_without_hard_links_will_do(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for _ in range(2):
        await store.put("cat", b"cat", media_type="x/y")
    with pytest.raises(ArtifactExists):
        await store.put("cat", b"dog", media_type="x/y")
    assert await read(store, "cat") == b"cat"
    assert files(store.root) == ["cat"]


async def test_a_stream_that_fails_leaves_nothing(store: LocalStore) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put("a/cat", breaks(), media_type="x/y")
    assert files(store.root) == []


async def test_a_cancelled_put_leaves_nothing_and_the_file_is_never_half_there(store: LocalStore) -> None:
    begun = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: store.put("a/cat", endless(), media_type="x/y"))
        await begun.wait()
        with pytest.raises(ArtifactNotFound):
            await read(store, "a/cat")
        group.cancel_scope.cancel()
    assert files(store.root) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../up", "a\\b", "C:/x", "a\0b", "a//b", "./a", "a\nb", "x" * 300]
)
async def test_a_name_that_tries_to_leave_is_refused_before_anything_is_touched(store: LocalStore, key: str) -> None:
    with pytest.raises(UnsafeName):
        await store.put(key, b"x", media_type="x/y")
    with pytest.raises(UnsafeName):
        await read(store, key)
    with pytest.raises(UnsafeName):
        await store.delete(key)
    assert not store.root.exists()


async def test_a_symbolic_link_that_leads_out_is_refused(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    store.root.mkdir()
    (store.root / "folder").symlink_to(outside)
    (store.root / "file").symlink_to(outside / "secret")
    (store.root / "fresh").symlink_to(outside / "fresh")
    for key in ("folder/secret", "file"):
        with pytest.raises(UnsafeName):
            await read(store, key)
    for key in ("folder/new", "folder/sub/new"):
        with pytest.raises(UnsafeName):
            await store.put(key, b"x", media_type="x/y", overwrite=True)
    for key in ("file", "fresh"):
        with pytest.raises(UnsafeName):
            await store.put(key, b"x", media_type="x/y")
    with pytest.raises(UnsafeName):
        await store.delete("folder/secret")
    await store.put("file", b"mine", media_type="x/y", overwrite=True)  # takes the link's place, not its target's
    assert await read(store, "file") == b"mine"
    assert files(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"


async def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "store")
    await store.put("a/cat", b"cat", media_type="x/y")
    assert await read(store, "a/cat") == b"cat"


async def test_what_is_not_there_is_not_found(store: LocalStore) -> None:
    await store.put("a/cat", b"cat", media_type="x/y")
    for key in ("nothing", "a", "a/cat/below", "b/c"):
        with pytest.raises(ArtifactNotFound):
            await read(store, key)


async def test_a_file_and_a_folder_cannot_share_a_name(store: LocalStore) -> None:
    await store.put("a/cat", b"cat", media_type="x/y")
    for overwrite in (False, True):
        for key in ("a", "a/cat/below"):
            with pytest.raises(ArtifactExists):
                await store.put(key, b"x", media_type="x/y", overwrite=overwrite)
    assert files(store.root) == ["a/cat"]


async def test_deleting_twice_is_no_error(store: LocalStore) -> None:
    await store.put("a/cat", b"cat", media_type="x/y")
    for _ in range(2):
        await store.delete("a/cat")
    await store.delete("never/there")
    assert files(store.root) == []


async def test_an_abandoned_reader_keeps_no_file_open(store: LocalStore) -> None:
    await store.put("big", b"x" * 1_000_000, media_type="x/y")
    reading = store.open("big")
    assert await anext(reading)
    await reading.aclose()  # type: ignore[attr-defined]  # it is a generator; a leaked file would be a warning


async def test_check_finds_a_store_good_and_leaves_nothing(store: LocalStore) -> None:
    await store.check()
    assert store.root.is_dir()
    assert files(store.root) == []


async def test_check_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageUnavailable, match="not a folder"):
            await LocalStore(root).check()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no room left.*free some space"),
        (errno.EDQUOT, "no room left"),
        (errno.EACCES, "this user may not.*EMP_STORE"),
        (errno.EROFS, "this user may not"),
        (errno.EIO, "Input/output error"),
    ],
)
async def test_a_disk_that_refuses_is_told_with_what_to_do(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageUnavailable, match=said):
        await store.put("a/cat", b"cat", media_type="x/y")
    with pytest.raises(StorageUnavailable, match=said):
        await store.check()
    assert files(store.root) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    # A limit on the size of files is a full disk that needs no rights to make.
    script = (
        "import anyio, resource, sys; from pathlib import Path\n"
        "from emp_core.errors import StorageUnavailable\n"
        "from emp_core.storage.local import LocalStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "async def main():\n"
        "    store = LocalStore(Path(sys.argv[1]))\n"
        "    for size in (1001, 1_000_000):\n"
        "        try: await store.put('a/cat', b'x' * size, media_type='x/y')\n"
        "        except StorageUnavailable as error: print(error)\n"
        "anyio.run(main)\n"
    )
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert said.stdout.count("no room left") == 2, said.stderr
    assert said.stderr == ""
    assert files(tmp_path) == []


async def listed(store: LocalStore, prefix: str = "", before: datetime | None = None) -> list[str]:
    return [one.key async for one in store.list_objects(prefix, stored_before=before)]


async def test_what_is_known_of_a_file_is_told_later_by_another_store_of_the_folder(store: LocalStore) -> None:
    stored = await store.put("a/cat.png", b"cat", media_type="image/png", retention="draft")
    assert stored.retention == "draft"
    assert stored.stored_at is not None
    assert abs((datetime.now(UTC) - stored.stored_at).total_seconds()) < 60
    assert await LocalStore(store.root).stat("a/cat.png") == stored


async def test_the_facts_of_a_file_go_with_it(store: LocalStore) -> None:
    for key in ("a/cat.png", "a", "a.json/b"):
        await store.put(key, key.encode(), media_type="image/png", retention="draft")
        await store.delete(key)
    assert [*store.root.rglob("*")] == [store.root / ".emp"]
    (store.root / "a").write_text("somebody else's")
    assert (await store.stat("a")).retention is None


async def test_names_that_look_like_each_others_facts_do_not_mix(store: LocalStore) -> None:
    for key in ("a", "a.json/b", "A.json"):
        await store.put(key, key.encode(), media_type=f"x/{len(key)}")
    assert [(await store.stat(key)).media_type for key in ("a", "a.json/b", "A.json")] == ["x/1", "x/8", "x/6"]


async def test_only_what_was_put_here_is_listed(store: LocalStore, tmp_path: Path) -> None:
    for key in ("a/1", "a/2", "ab", "b/c/3", ".hidden"):
        await store.put(key, b"x", media_type="x/y")
    (store.root / "foreign").write_text("x")
    (store.root / "b" / "replaced").write_text("x")
    await store.put("b/grown", b"x", media_type="x/y")
    (store.root / "b" / "grown").write_text("somebody else's")
    (tmp_path / "outside").mkdir()
    (store.root / "link").symlink_to(tmp_path / "outside")
    (store.root / "b" / "link").symlink_to(store.root / "ab")
    assert await listed(store) == [".hidden", "ab", "a/1", "a/2", "b/c/3"]
    assert await listed(store, "a") == ["ab", "a/1", "a/2"]
    assert await listed(store, "b/c/") == ["b/c/3"]
    assert await listed(store, "nothing/") == []
    assert await listed(LocalStore(tmp_path / "never made")) == []


async def test_only_what_was_stored_before_a_moment_is_listed(store: LocalStore) -> None:
    for key, age in (("old", 7200), ("new", 0)):
        await store.put(key, b"x", media_type="x/y")
        changed = datetime.now(UTC).timestamp() - age
        os.utime(store.root / key, (changed, changed))
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert await listed(store, before=hour_ago) == ["old"]
    assert sorted(await listed(store, before=hour_ago + timedelta(hours=2))) == ["new", "old"]


async def test_what_is_listed_may_be_deleted_on_the_way(store: LocalStore) -> None:
    for number in range(250):
        await store.put(f"jobs/{number:03}/out", b"x", media_type="x/y")
    async for one in store.list_objects():
        await store.delete(one.key)
    assert [*store.root.rglob("*")] == [store.root / ".emp"]


async def test_deleting_leaves_folders_that_hold_something(store: LocalStore) -> None:
    await store.put("a/b/1", b"x", media_type="x/y")
    await store.put("a/2", b"x", media_type="x/y")
    await store.delete("a/b/1")
    assert files(store.root) == ["a/2"]
    assert not (store.root / "a" / "b").exists()


async def test_the_stores_own_folder_is_no_place_for_files(store: LocalStore) -> None:
    for key in (".emp/ab/x.json", ".emp", ".EMP/x"):
        with pytest.raises(UnsafeName, match="own folder"):
            await store.put(key, b"x", media_type="x/y")
    await store.put("a/.emp/x", b"x", media_type="x/y")
    assert await listed(store) == ["a/.emp/x"]


async def test_facts_that_cannot_be_read_make_a_file_nobodys(store: LocalStore) -> None:
    await store.put("cat", b"cat", media_type="x/y", retention="draft")
    [facts] = (store.root / ".emp").rglob("*.json")
    for text in ("", "[]", "{", '{"key": "dog"}', '{"key": "cat", "media_type": 1}', "\ud800"):
        facts.write_text(text, errors="surrogatepass")
        found = await store.stat("cat")
        assert (found.sha256, found.retention) == ("", None)
        assert await listed(store) == []


async def test_a_file_has_no_signed_address(store: LocalStore) -> None:
    with pytest.raises(CannotSign, match="azure://"):
        await store.sign("cat", expires_in_s=60)
    with pytest.raises(UnsafeName):
        await store.sign("../cat", expires_in_s=60)
