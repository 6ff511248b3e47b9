"""Files by their path: below the allowed folders, and nowhere else."""

import os
import socket
from pathlib import Path

import pytest

from emp_core.errors import ConfigError, InputError
from emp_core.inputs import paths
from emp_core.inputs.paths import LocalFiles


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "cat.png").write_bytes(b"a cat")
    (tmp_path / "secret").write_bytes(b"a secret")
    return folder


def content(files: LocalFiles, path: Path | str) -> bytes:
    with files.open(str(path)) as file:
        return file.read()


def test_no_path_is_taken_unless_a_folder_is_allowed(allowed: Path) -> None:
    with pytest.raises(InputError, match="EMP_INPUT_FOLDERS"):
        LocalFiles().open(str(allowed / "sub" / "cat.png"))


def test_files_below_an_allowed_folder_are_opened(allowed: Path) -> None:
    assert content(LocalFiles(["/nowhere/at/all", str(allowed)]), allowed / "sub" / "cat.png") == b"a cat"
    assert content(LocalFiles([str(allowed)]), f"{allowed}/sub/../sub/./cat.png") == b"a cat"


def test_links_may_lead_within_the_allowed_folders(allowed: Path, tmp_path: Path) -> None:
    (allowed / "link.png").symlink_to("sub/cat.png")
    (allowed / "linked").symlink_to(allowed / "sub")
    (tmp_path / "way in").symlink_to(allowed)
    assert content(LocalFiles([str(allowed)]), allowed / "link.png") == b"a cat"
    assert content(LocalFiles([str(allowed)]), allowed / "linked" / "cat.png") == b"a cat"
    assert content(LocalFiles([str(tmp_path / "way in")]), tmp_path / "way in" / "sub" / "cat.png") == b"a cat"


@pytest.mark.parametrize(
    "path", ["{0}/../secret", "{0}/sub/../../secret", "{1}/secret", "/etc/passwd", "/proc/self/environ"]
)
def test_paths_that_lead_elsewhere_are_refused(allowed: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="not below a folder"):
        LocalFiles([str(allowed)]).open(path.format(allowed, tmp_path))


def test_links_that_lead_elsewhere_are_refused(allowed: Path, tmp_path: Path) -> None:
    (allowed / "out").symlink_to(tmp_path / "secret")
    (allowed / "up").symlink_to(tmp_path)
    for path in (allowed / "out", allowed / "up" / "secret"):
        with pytest.raises(InputError, match="not below a folder"):
            LocalFiles([str(allowed)]).open(str(path))


def test_a_folder_whose_name_begins_alike_is_another_one(allowed: Path) -> None:
    beside = allowed.with_name("allowed too")
    beside.mkdir()
    (beside / "cat.png").write_bytes(b"")
    with pytest.raises(InputError, match="not below a folder"):
        LocalFiles([str(allowed)]).open(str(beside / "cat.png"))


def test_whether_a_file_is_there_is_told_only_below_the_folders(allowed: Path, tmp_path: Path) -> None:
    files = LocalFiles([str(allowed)])
    with pytest.raises(InputError, match="No such file"):
        files.open(str(allowed / "missing"))
    refusals = set()
    for path in (tmp_path / "secret", tmp_path / "missing"):
        with pytest.raises(InputError) as caught:
            files.open(str(path))
        refusals.add(caught.value.message.replace(str(path), ""))
    assert len(refusals) == 1


def test_what_is_no_plain_file_is_refused_without_being_opened(allowed: Path) -> None:
    os.mkfifo(allowed / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(allowed / "socket"))
        for name in ("pipe", "socket", "sub", "."):
            with pytest.raises(InputError, match=r"no plain file|is a folder"):
                LocalFiles([str(allowed)]).open(str(allowed / name))
    with pytest.raises(InputError, match="no plain file"):
        LocalFiles(["/dev"]).open("/dev/null")


def test_a_link_that_comes_up_after_the_look_is_not_followed(
    allowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = allowed / "sub" / "cat.png"
    opened = paths._opened

    def swap_then_open(root: Path, steps: tuple[str, ...], path: str) -> object:
        target.unlink()
        target.symlink_to(tmp_path / "secret")
        return opened(root, steps, path)

    monkeypatch.setattr(paths, "_opened", swap_then_open)
    with pytest.raises(InputError, match="no plain file"):
        LocalFiles([str(allowed)]).open(str(target))


def test_a_folder_that_becomes_a_link_after_the_look_is_not_followed(
    allowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(b"another secret")
    opened = paths._opened

    def swap_then_open(root: Path, steps: tuple[str, ...], path: str) -> object:
        (allowed / "sub").rename(allowed / "moved")
        (allowed / "sub").symlink_to(tmp_path)
        return opened(root, steps, path)

    monkeypatch.setattr(paths, "_opened", swap_then_open)
    with pytest.raises(InputError, match="changed while it was opened"):
        LocalFiles([str(allowed)]).open(str(allowed / "sub" / "cat.png"))


@pytest.mark.parametrize("path", ["sub/cat.png", "", "~/cat.png"])
def test_paths_must_be_absolute(allowed: Path, path: str) -> None:
    with pytest.raises(InputError, match="no absolute path"):
        LocalFiles([str(allowed)]).open(path)


def test_links_in_a_circle_are_an_error_of_the_input(allowed: Path) -> None:
    (allowed / "a").symlink_to(allowed / "b")
    (allowed / "b").symlink_to(allowed / "a")
    with pytest.raises(InputError):
        LocalFiles([str(allowed)]).open(str(allowed / "a"))


def test_folders_that_cannot_be_allowed_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        LocalFiles(["relative", "/", "//", "/tmp/..", "/fine"])
    assert len(caught.value.problems) == 4
