"""What lies in a folder at one moment."""

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen

__all__ = ["Contents", "Snapshot", "contents_of", "differences", "remove", "snapshot_of"]

Contents = Mapping[str, str]
"""Relative path → what lies there: the checksum of a file, the target of a link, ``folder``."""


@frozen
class Snapshot:
    """A folder as it was, so exactly that even writing the same again shows.

    Attributes:
        facts: relative path → mode, size, time of the last change, and inode of everything in it.
    """

    facts: Mapping[str, tuple[int, ...]]

    def differences(self, later: "Snapshot") -> str:
        """The paths whose facts are others later."""
        return differences(self.facts, later.facts)


def snapshot_of(folder: Path, *, without: Collection[Path] = ()) -> Snapshot:
    """A folder as it is now.

    Args:
        without: folders that are left out; of those above them, the time is.
    """
    facts = {}
    for path in _below(folder, without):
        seen = path.lstat()
        changed = 0 if any(path in left_out.parents for left_out in without) else seen.st_mtime_ns
        size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
        facts[str(path.relative_to(folder))] = (seen.st_mode, size, changed, seen.st_ino)
    return Snapshot(facts)


def contents_of(folder: Path, *, ignored: Sequence[str] = ()) -> Contents:
    """What lies in a folder, whenever it was put there.

    Args:
        ignored: patterns of relative paths that are left out (``*.log``, ``cache/*``).
    """
    found = {}
    for path in _below(folder, ()):
        name = str(path.relative_to(folder))
        if not any(fnmatchcase(name, pattern) for pattern in ignored):
            found[name] = _content(path)
    return found


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """The paths that are not the same in both, in words."""
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    shown = ", ".join(
        f"{path} ({'new' if path not in before else 'gone' if path not in after else 'changed'})" for path in paths[:10]
    )
    return f"{shown} and {len(paths) - 10} more" if len(paths) > 10 else shown


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _below(folder: Path, without: Collection[Path]) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if here / name not in without]
        yield here
        yield from (here / name for name in files)
        yield from (here / name for name in folders if (here / name).is_symlink())


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "folder"
    executable = " executable" if os.access(path, os.X_OK) else ""
    return hashlib.sha256(path.read_bytes()).hexdigest() + executable
