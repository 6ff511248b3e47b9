"""Writing what was rendered."""

from pathlib import Path

import pytest
from emp_machine.errors import MachineError
from emp_machine.render.files import RenderedFile, write_files

PUBLIC = RenderedFile(Path("a.conf"), "text\n")
PRIVATE = RenderedFile(Path("env") / "a.env", "KEY=hunter2\n", private=True)


def test_files_that_may_hold_secrets_are_for_their_user_alone(tmp_path: Path) -> None:
    write_files([PUBLIC, PRIVATE], tmp_path / "out")
    assert (tmp_path / "out" / "a.conf").read_text() == "text\n"
    assert (tmp_path / "out" / "a.conf").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out" / "env" / "a.env").stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in repr(PRIVATE)


def test_a_file_that_is_as_it_should_be_stays_untouched(tmp_path: Path) -> None:
    write_files([PRIVATE], tmp_path)
    before = (tmp_path / PRIVATE.path).stat()
    write_files([PRIVATE], tmp_path)
    after = (tmp_path / PRIVATE.path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / PRIVATE.path
    path.parent.mkdir()
    path.write_text(PRIVATE.text)
    path.chmod(0o644)
    write_files([PRIVATE], tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    (tmp_path / "a.conf").symlink_to(target)
    write_files([PUBLIC], tmp_path)
    assert target.read_text() == "theirs"
    assert not (tmp_path / "a.conf").is_symlink()


def test_what_cannot_be_written_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.conf").mkdir()
    with pytest.raises(MachineError, match=r"a\.conf cannot be written"):
        write_files([PUBLIC], tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.conf"]
