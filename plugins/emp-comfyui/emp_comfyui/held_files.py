"""Uploaded files in a server's input folder that this machine sees: kept while a job needs them, removed by the last one.

ComfyUI has no route that deletes an upload, so it takes the folder. Equal files of several jobs are one file (its name is its
content's), and several workers may use one server. So each job leaves a note of what it holds, beside the files, and only who
takes away the last note of a file removes it.
"""

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from attrs import frozen

__all__ = ["OURS", "HeldFiles", "holder_of"]

OURS = "emp"
"""The subfolder of our uploads; where a file cannot be in one, its name begins so."""

_NOTES = f"{OURS}/.held"
_LOCK = f"{OURS}/.lock"
_LEFT_S = 7 * 86_400.0
_UPLOADED = re.compile(rf"({OURS}/|(3d/)?{OURS}-)[0-9a-f]{{32}}( \(\d+\))?(\.[a-z0-9]{{1,8}})?", re.ASCII)


def holder_of(job_id: str, attempt: int) -> str:
    """An attempt's name as a holder of files."""
    return f"{job_id}.{attempt}"


@frozen
class HeldFiles:
    """The files of ours in a server's input folder. All methods block; for threads.

    Attributes:
        folder: the server's input folder as this machine sees it.
    """

    folder: Path

    def hold(self, name: str, size_bytes: int | None, holder: str) -> bool:
        """Note that a job holds a file; False: it is not there, or this machine may not remove it.

        Args:
            name: below the input folder, with ``/``, as it was uploaded.
            size_bytes: its length; None: what the server made of the upload.
            holder: as `holder_of` makes it of a job and its attempt.
        """
        # Another program's folder may look alike; a file whose name is its content's is no coincidence.
        if not _UPLOADED.fullmatch(name) or not self._is_there(name, size_bytes):
            return False
        try:
            with self._alone():
                if not self._is_there(name, size_bytes):  # another job was done with it just now
                    return False
                notes = self._notes(name)
                notes.mkdir(parents=True, exist_ok=True)
                (notes / quote(holder, safe="")).touch()
        except OSError:
            return False
        return True

    def let_go(self, job_id: str, attempt: int) -> list[str]:
        """Forget what a job holds, by this attempt and earlier ones; gives the files that were removed.

        Raises:
            OSError: files could not be removed.
        """

        def is_ours(note: Path) -> bool:
            job, _, number = unquote(note.name).rpartition(".")
            return job == job_id and number.isdecimal() and int(number) <= attempt

        return self._let_go(is_ours)

    def let_go_of_left(self) -> list[str]:
        """Forget what jobs hold that nobody let go of for a week: their workers were killed, and no attempt followed.

        Raises:
            OSError: files could not be removed.
        """
        oldest = time.time() - _LEFT_S
        return self._let_go(lambda note: note.stat().st_mtime < oldest)

    def _let_go(self, which: Callable[[Path], bool]) -> list[str]:
        if not (self.folder / _NOTES).is_dir():
            return []
        removed: list[str] = []
        with self._alone():
            for notes in (self.folder / _NOTES).iterdir():
                held = list(notes.iterdir())
                gone = [note for note in held if which(note)]
                for note in gone:
                    note.unlink()
                name = unquote(notes.name)
                if gone and len(gone) == len(held) and _UPLOADED.fullmatch(name):
                    (self.folder / name).unlink(missing_ok=True)
                    notes.rmdir()
                    removed.append(name)
        return removed

    def _is_there(self, name: str, size_bytes: int | None) -> bool:
        try:
            found = (self.folder / name).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and size_bytes in (None, found.st_size)

    def _notes(self, name: str) -> Path:
        return self.folder / _NOTES / quote(name, safe="")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, over all processes that see the folder."""
        (self.folder / OURS).mkdir(exist_ok=True)
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
