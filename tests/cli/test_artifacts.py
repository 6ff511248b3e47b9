"""`emp artifacts`, and where the outputs of a submitted job go."""

import json
import os
import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from emp_core.storage.azure import AzureStore
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore
from emp_core.testing.object_stores import BlobServer

from .conftest import Emp

DAY_S = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder)


def put(store: ArtifactStore, *keys: str, retention: str | None = None) -> list[str]:
    """Store files whose bytes are their keys; gives their URLs."""

    async def run() -> list[str]:
        try:
            return [
                (await store.put(key, key.encode(), media_type="text/plain", retention=retention)).url for key in keys
            ]
        finally:
            await store.aclose()

    return anyio.run(run)


def aged(folder: Path, key: str, age_s: float) -> None:
    """Make an artifact look as if it had been stored so long ago."""
    then = time.time() - age_s
    os.utime(folder / key, (then, then))


def keys_in(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".emp" not in path.parts
    )


def test_artifacts_are_listed_by_what_their_names_begin_with(emp: Emp, store: LocalStore, folder: Path):
    put(store, "a/1-0-x.txt", "a/1-1-y.txt", "b/1-0-x.txt", retention="draft")
    listed = emp("artifacts", "ls", "a/", "--json", EMP_STORE=str(folder))
    assert listed.code == 0
    assert sorted(one["name"] for one in listed.data) == ["a/1-0-x.txt", "a/1-1-y.txt"]
    assert {(one["media_type"], one["size_bytes"], one["retention"]) for one in listed.data} == {
        ("text/plain", 11, "draft")
    }
    shown = emp("artifacts", "ls", "--limit", "2", EMP_STORE=str(folder))
    assert len(shown.out.splitlines()) == 3
    assert "--limit 20" in shown.err


def test_artifacts_are_copied_by_name_and_by_url_and_replace_nothing(
    emp: Emp, store: LocalStore, folder: Path, tmp_path: Path
):
    [url] = put(store, "b/1-0-x.txt")
    put(store, "a/1-0-x.txt", "a/1.1-0-x.txt")
    out = tmp_path / "out"
    got = emp("artifacts", "get", "a/1-0-x.txt", url, "a/1.1-0-x.txt", "--output", str(out), EMP_STORE=str(folder))
    assert got.code == 0, got.err
    assert got.out.splitlines() == [str(out / name) for name in ("x.txt", "x (1).txt", "x (2).txt")]
    assert (out / "x.txt").read_text() == "a/1-0-x.txt"
    assert (out / "x (1).txt").read_text() == "b/1-0-x.txt"
    again = emp("artifacts", "get", "a/1-0-x.txt", "--output", str(out), "--json", EMP_STORE=str(folder))
    assert [one["path"] for one in again.data] == [str(out / "x.txt")]
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize("command", ["get", "rm"])
def test_of_artifacts_that_are_not_all_there_nothing_is_done(
    emp: Emp, store: LocalStore, folder: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
):
    put(store, "a/1-0-x.txt")
    (folder / "foreign.txt").write_text("not ours")
    (tmp_path / "secret.txt").write_text("outside")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for missing in ("a/1-1-y.txt", "../secret.txt", str(tmp_path / "secret.txt"), "foreign.txt"):
        ended = emp("artifacts", command, "a/1-0-x.txt", missing, "--json", EMP_STORE=str(folder))
        assert (ended.code, ended.error["code"]) == (1, "artifact_not_found")
    assert keys_in(folder) == ["a/1-0-x.txt", "foreign.txt"]
    assert not list((tmp_path / "here").iterdir())
    assert (tmp_path / "secret.txt").exists()


def test_artifacts_are_deleted(emp: Emp, store: LocalStore, folder: Path):
    put(store, "a/1-0-x.txt", "a/1-1-y.txt")
    ended = emp("artifacts", "rm", "a/1-0-x.txt", "a/1-0-x.txt", EMP_STORE=str(folder))
    assert (ended.code, ended.out) == (0, "")
    assert "Deleted 1 artifact." in ended.err
    assert keys_in(folder) == ["a/1-1-y.txt"]


def test_a_signed_address_reads_one_artifact_and_a_folder_has_none(
    emp: Emp, azurite: BlobServer, store: LocalStore, folder: Path
):
    put(store, "a/1-0-x.txt")
    assert emp("artifacts", "url", "a/1-0-x.txt", EMP_STORE=str(folder)).out.startswith("file:///")
    refused = emp("artifacts", "url", "a/1-0-x.txt", "--expires", "1h", "--json", EMP_STORE=str(folder))
    assert (refused.code, refused.error["code"]) == (2, "cannot_sign")
    url = f"azure://{azurite.new_container()}/work"
    put(AzureStore.from_url(url, azurite.environ), "a/1-0-x.txt")
    environ = {"EMP_STORES": json.dumps({"final": {"url": url, "env": dict(azurite.environ)}})}
    signed = emp("artifacts", "url", "a/1-0-x.txt", "--store", "final", "--expires", "5m", environ=environ)
    plain = emp("artifacts", "url", "a/1-0-x.txt", "--store", "final", environ=environ)
    assert httpx.get(signed.out.strip(), trust_env=False).text == "a/1-0-x.txt"
    assert httpx.get(plain.out.strip(), trust_env=False).status_code != 200
    assert azurite.key not in signed.out + signed.err


def test_artifacts_are_pruned_by_the_age_of_their_class(emp: Emp, store: LocalStore, folder: Path):
    put(store, "young.txt", "old.txt", retention="draft")
    put(store, "kept.txt", retention="final")
    put(store, "plain.txt")
    (folder / "foreign.txt").write_text("not ours")
    for name in ("old.txt", "kept.txt", "plain.txt", "foreign.txt"):
        aged(folder, name, 8 * DAY_S)
    environ = {"EMP_STORE": str(folder), "EMP_RETENTION": "draft=7d"}
    tried = emp("artifacts", "prune", "--dry-run", "--json", environ=environ)
    assert [one["name"] for one in tried.data["would_delete"]] == ["old.txt"]
    assert tried.data["kept_without_age"] == {"final": 1, "default": 1}
    assert "old.txt" in keys_in(folder)
    done = emp("artifacts", "prune", "--json", environ=environ)
    assert (done.code, done.data["deleted"], done.data["size_bytes"]) == (0, {"draft": 1}, 7)
    assert keys_in(folder) == ["foreign.txt", "kept.txt", "plain.txt", "young.txt"]
    everything = emp("artifacts", "prune", "--older-than", "1d", environ=environ)
    assert everything.code == 0
    assert "Deleted 2 artifacts" in everything.err
    assert keys_in(folder) == ["foreign.txt", "young.txt"]


def test_pruning_without_any_age_says_what_to_set(emp: Emp, folder: Path):
    ended = emp("artifacts", "prune", "--json", EMP_STORE=str(folder))
    assert (ended.code, ended.error["code"]) == (2, "config")
    assert "EMP_RETENTION" in ended.error["hint"]


@pytest.mark.parametrize("age", ["soon", "-1d", "7 parsecs", ""])
def test_an_age_that_is_none_is_wrong_usage(emp: Emp, age: str):
    assert emp("artifacts", "prune", "--older-than", age, "--json").code == 2


def test_a_store_that_nobody_set_up_is_told_with_those_that_are(emp: Emp, folder: Path):
    ended = emp("artifacts", "ls", "--store", "finale", "--json", EMP_STORE=str(folder), EMP_STORES='{"final": "/f"}')
    assert (ended.code, ended.error["code"]) == (2, "config")
    assert "default, final" in ended.error["message"]


@pytest.mark.parametrize("source", ["command line", "file"])
def test_where_the_outputs_go_is_said_at_submit(on_hub: Emp, tmp_path: Path, source: str):
    ctx: dict[str, Any] = {
        "prefix": "shots/010",
        "filename": "hero",
        "retention": "draft",
        "storage": {"bucket": "art", "accountName": "studio7", "accountKey": "geheim"},
    }
    if source == "file":
        (tmp_path / "ctx.json").write_text(json.dumps(ctx))
    told = f"@{tmp_path / 'ctx.json'}" if source == "file" else json.dumps(ctx)
    submitted = on_hub("submit", "nosuch", "--ctx", told, "--json")
    assert submitted.code == 0, submitted.out
    shown = on_hub("jobs", "show", submitted.data["id"], "--json")
    assert shown.data["ctx"] == {**ctx, "storage": {**ctx["storage"], "accountKey": "(hidden)"}}
    assert "geheim" not in submitted.out + submitted.err + shown.out + shown.err
    assert on_hub("jobs", "cancel", submitted.data["id"]).code == 0


@pytest.mark.parametrize(
    ("ctx", "told"),
    [
        ("{", "JSON object"),
        ("[]", "storage, prefix, filename, retention"),
        ('{"bucket": "geheim"}', "storage, prefix, filename, retention"),
        ("@missing.json", "missing.json"),
        ('{"prefix": "../out"}', "ctx.prefix"),
        ('{"storage": {"bucket": "B!", "accountName": "a", "accountKey": "geheim"}}', "ctx.storage.bucket"),
    ],
)
def test_a_destination_that_cannot_be_used_is_refused_at_submit(on_hub: Emp, ctx: str, told: str):
    ended = on_hub("submit", "nosuch", "--ctx", ctx, "--json")
    assert ended.code == 2
    assert told in ended.out
    assert "geheim" not in ended.out + ended.err
