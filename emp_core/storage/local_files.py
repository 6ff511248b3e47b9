"""Files on their way into a folder and out of it: whole or not at all, and never through a link out of it."""

import contextlib
import errno
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from emp_core.errors import ArtifactExists, ArtifactNotFound, StorageError, StorageUnavailable, UnsafeName

__all__ = ["Reading", "Upload", "in_chunks", "stay_inside", "told"]

_CHUNK_BYTES = 256 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Upload:
    """A file on its way in. The lock is for a caller that was cancelled while a thread still writes."""

    def __init__(self, root: Path, target: Path) -> None:
        self.size_bytes = 0
        self._root = root
        self._target = target
        self._part = target.parent / f".{secrets.token_hex(8)}.part"
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._done = False
        self._turn = threading.Lock()

    @property
    def sha256(self) -> str:
        """The checksum of what was written, in hexadecimal."""
        return self._hash.hexdigest()

    def begin(self) -> None:
        """Make the folders, and a file beside where it will stand."""
        with self._turn, told(self._root, self._target):
            if self._done:
                return
            _make_root(self._root)
            # Before the folders are made: making them would follow a link out of the store.
            stay_inside(self._root, self._target.parent)
            self._file = self._opened_part()

    def write(self, chunk: bytes) -> None:
        """Add to it."""
        with self._turn, told(self._root, self._target):
            file = self._opened()
            file.write(chunk)
            self._hash.update(chunk)
            self.size_bytes += len(chunk)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        with self._turn, told(self._root, self._target):
            self._sync()

    def finish(self, overwrite: bool) -> bool:
        """Give the file its name; False when the same bytes have it already."""
        with self._turn, told(self._root, self._target):
            self._sync()
            if overwrite:
                self._part.replace(self._target)
            elif not self._link():
                return False
            _sync_folder(self._target.parent)
            return True

    def discard(self) -> None:
        """Remove what is left of it on the way."""
        with self._turn, told(self._root, self._target):
            self._done = True
            if self._file is None:
                return
            with contextlib.suppress(OSError):  # what is still buffered has no room and is not wanted
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _opened_part(self) -> BinaryIO:
        while True:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # whoever deletes removes folders that are empty
                return self._part.open("xb")

    def _opened(self) -> BinaryIO:
        if self._file is None or self._done:
            raise StorageError(f"writing {self._target} was given up")
        return self._file

    def _sync(self) -> None:
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())

    def _link(self) -> bool:
        """Name the file unless the name is taken; False when the same bytes have it."""
        try:
            self._target.hardlink_to(self._part)
        except FileExistsError:
            self._compare()
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links. Two writers of one key at one moment are not told apart here.
            if os.path.lexists(self._target):
                self._compare()
                return False
            self._part.replace(self._target)
        return True

    def _compare(self) -> None:
        with contextlib.closing(Reading(self._root, self._target)) as reading:
            there = hashlib.sha256()
            try:
                while chunk := reading.read():
                    there.update(chunk)
            except ArtifactNotFound:  # a folder, or a link to nothing
                there = hashlib.sha256(secrets.token_bytes(16))
        if there.digest() != self._hash.digest():
            raise ArtifactExists(
                f"{self._target} holds something else", hint="use another name, or ask for it to be overwritten"
            )


class Reading:
    """A file on its way out. Python's own lock in buffered files keeps a late read and a close apart."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._file: BinaryIO | None = None
        self._closed = False
        self._turn = threading.Lock()

    def read(self) -> bytes:
        """The next bytes; none at the end."""
        with self._turn, told(self._root, self._path):
            if self._closed:
                return b""
            if self._file is None:
                stay_inside(self._root, self._path)
                if not self._path.is_file():
                    raise ArtifactNotFound(f"nothing is stored at {self._path}")
                self._file = self._path.open("rb")
            return self._file.read(_CHUNK_BYTES)

    def close(self) -> None:
        """Read no more."""
        with self._turn:
            self._closed = True
            if self._file is not None:
                self._file.close()


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageUnavailable(
            f"the store {root} is not a folder, or lies below a file", hint="set EMP_STORE to a folder"
        ) from error


def stay_inside(root: Path, path: Path) -> None:
    """Raise UnsafeName if a symbolic link leads from ``path`` out of ``root``."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise UnsafeName(
            f"{path} leads out of the store {root} through a symbolic link", hint="remove the link from the store"
        )


def _sync_folder(folder: Path) -> None:
    """Bring the name to the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


async def in_chunks(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The data in pieces that are worth a trip to a thread."""
    if isinstance(data, bytes | bytearray | memoryview):
        yield bytes(data)
        return
    waiting: list[bytes] = []
    size = 0
    async for chunk in data:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


@frozen
class _Meaning:
    """What an error of the system means for the store."""

    error: type[StorageError]
    what: str
    hint: str | None


def _meaning(error: OSError, root: Path) -> _Meaning:
    if error.errno in _NO_ROOM:
        return _Meaning(
            StorageUnavailable, "there is no room left", "free some space, or set EMP_STORE to a store with room"
        )
    if error.errno in _NOT_ALLOWED:
        hint = f"make {root} writable for this user, or set EMP_STORE to another store"
        return _Meaning(StorageUnavailable, "this user may not", hint)
    if error.errno == errno.ENAMETOOLONG:
        return _Meaning(UnsafeName, "the name is too long", "use a shorter one")
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return _Meaning(ArtifactExists, "a file and a folder cannot have the same name", "use another name")
    return _Meaning(
        StorageUnavailable, error.strerror or str(error), "see to the disk, or set EMP_STORE to another store"
    )


@contextlib.contextmanager
def told(root: Path, path: Path) -> Iterator[None]:
    """Say what an error of the system means."""
    try:
        yield
    except OSError as error:
        meaning = _meaning(error, root)
        raise meaning.error(f"cannot use {path} in the store {root}: {meaning.what}", hint=meaning.hint) from error
