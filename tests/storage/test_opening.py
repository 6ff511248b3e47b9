from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore
from emp_core.storage.opening import open_store


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///var/art", "/var/art"),
        ("file://localhost/var/art", "/var/art"),
        ("file:/var/art", "/var/art"),
        ("file:///var/a%20b%23c", "/var/a b#c"),
        ("/var/art", "/var/art"),
    ],
)
def test_files_and_plain_paths_are_local(url: str, folder: str) -> None:
    store = open_store(url)
    assert isinstance(store, LocalStore)
    assert store.root == Path(folder)


def test_a_relative_path_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("art")
    monkeypatch.undo()
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "art"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    store = open_store("~/art")
    assert isinstance(store, LocalStore)
    assert store.root == Path("/home/somebody/art")


def test_the_default_of_the_settings_opens(tmp_path: Path) -> None:
    store = open_store(Settings.from_env({"EMP_DATA_DIR": str(tmp_path / "a b%#?")}).store_url)
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "a b%#?" / "artifacts"


def _must_not_run(url: str, environ: Mapping[str, str]) -> NoReturn:
    raise AssertionError("only the scheme that is asked for is opened")


def test_a_plugins_scheme_is_opened_by_its_opener(tmp_path: Path) -> None:
    seen = []

    def opener(url: str, environ: Mapping[str, str]) -> ArtifactStore:
        seen.append((url, environ))
        return LocalStore(tmp_path)

    environ = {"S3_KEY": "secret"}
    store = open_store("s3://bucket/art", stores={"s3": opener, "azure": _must_not_run}, environ=environ)
    assert isinstance(store, LocalStore)
    assert seen == [("s3://bucket/art", environ)]


def test_an_unknown_scheme_lists_the_known_ones_and_hides_the_url() -> None:
    with pytest.raises(ConfigError, match=r"'ftp'; known are: azure, file, s3") as raised:
        open_store("ftp://me:secret@host/x", stores={"s3": _must_not_run, "azure": _must_not_run})
    assert "secret" not in str(raised.value)


def test_a_url_that_cannot_be_read_is_refused_without_what_it_says() -> None:
    with pytest.raises(ConfigError, match="cannot be read") as raised:
        open_store("made-up://me:secret\u2100@host/x", stores={"made-up": _must_not_run})
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["", "  ", "file://host/share", "file:art", "file://", "file:///a?b", "file:///a#b", "s3://[bad"]
)
def test_a_url_that_names_no_store_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url, stores={"s3": _must_not_run})
