"""Files by their path on this machine: below the folders that the operator named, and nowhere else."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from emp_core.errors import ConfigError, InputError

__all__ = ["LocalFiles"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LocalFiles:
    """Opens files below some folders.

    Links are followed as long as they lead to a place below one of the folders. What is opened is what was looked at: the
    way to the file is walked folder by folder, without following any link that comes up meanwhile.

    Args:
        folders: absolute paths; ``~`` is the user's home folder.

    Raises:
        ConfigError: folders that are not absolute, or the whole file system; lists all of them.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self.folders = tuple(Path(folder).expanduser() for folder in folders)
        problems = [f"{folder}: expected an absolute path" for folder in self.folders if not folder.is_absolute()]
        problems += [
            f"{folder}: this is every file" for folder in self.folders if not os.path.normpath(folder).strip("/")
        ]
        if problems:
            raise ConfigError("EMP_INPUT_FOLDERS has folders that cannot be used", problems=tuple(problems))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            InputError: it is not below the folders, is not there, may not be read, or is no plain file.
        """
        if not self.folders:
            raise InputError(
                "this worker takes no files by their path",
                hint="its operator can allow folders by EMP_INPUT_FOLDERS; or send the file itself, or a URL",
                details={"reason": "path_refused"},
            )
        with _told(path):
            given = Path(path)
            if not given.is_absolute():
                raise InputError(f"{path} is no absolute path", details={"reason": "path_refused"})
            # Whether it is there is told only of places that may be looked into.
            resolved = given.resolve()
            for folder in self.folders:
                root = folder.resolve()
                if resolved.is_relative_to(root):
                    return _opened(root, resolved.relative_to(root).parts, path)
        raise InputError(
            f"{path} is not below a folder that this worker takes files from", details={"reason": "path_refused"}
        )


def _opened(root: Path, steps: Sequence[str], path: str) -> BinaryIO:
    if not steps:
        raise InputError(f"{path} is a folder")
    here = os.open(root, _FOLDER)
    try:
        for step in steps[:-1]:
            below = os.open(step, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        _check_plain(os.stat(steps[-1], dir_fd=here, follow_symlinks=False), path)  # opening a device may do something
        descriptor = os.open(steps[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
    try:
        _check_plain(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_plain(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is no plain file", details={"reason": "path_refused"})


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InputError(f"{path} leads nowhere, or changed while it was opened") from error
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="paths are those of the worker's machine" if error.errno == errno.ENOENT else None,
        ) from error
    except (RuntimeError, ValueError) as error:  # a loop of links; a NUL
        raise InputError(f"{path} is no path: {error}") from error
