"""Artifacts as files below one folder of this machine."""

import contextlib
import errno
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio.to_thread import run_sync
from attrs import frozen

from emp_core.errors import ArtifactExists, ArtifactNotFound, StorageError, StorageUnavailable, UnsafeName
from emp_core.storage.interface import StoredObject
from emp_core.storage.names import safe_key

__all__ = ["LocalStore"]

_CHUNK_BYTES = 256 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """An artifact store in a folder, which is made when it is first needed.

    A file appears under its name when it is whole and on the disk, never before. Nothing is read or written outside of
    the folder, whatever keys or symbolic links say.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, media_type: str, overwrite: bool = False
    ) -> StoredObject:
        """Store a file.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactExists: the key holds other bytes, and ``overwrite`` is false; or it is a folder.
            StorageUnavailable: the folder cannot be written now; says what to do.
        """
        target = self._path(key)
        upload = _Upload(self.root, target)
        try:
            await run_sync(upload.begin)
            async for chunk in _in_chunks(data):
                await run_sync(upload.write, chunk)
            await run_sync(upload.finish, overwrite)
        finally:
            with anyio.CancelScope(shield=True):  # local and short
                await run_sync(upload.discard)
        return StoredObject(
            key=safe_key(key),
            url=target.as_uri(),
            media_type=media_type,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
        )

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        reading = _Reading(self.root, self._path(key))
        try:
            while chunk := await run_sync(reading.read):
                yield chunk
        finally:
            reading.close()

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        await run_sync(_remove, self.root, self._path(key))

    async def check(self) -> None:
        """Find out whether the store can be written, by writing.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        upload = _Upload(self.root, self.root / "check")
        try:
            await run_sync(upload.begin)
            await run_sync(upload.write, b"check")
            await run_sync(upload.sync)
        finally:
            with anyio.CancelScope(shield=True):  # local and short
                await run_sync(upload.discard)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    def _path(self, key: str) -> Path:
        return self.root / safe_key(key)


class _Upload:
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
        return self._hash.hexdigest()

    def begin(self) -> None:
        with self._turn, _told(self._root, self._target):
            if self._done:
                return
            _make_root(self._root)
            # Before the folders are made: making them would follow a link out of the store.
            _stay_inside(self._root, self._target.parent)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("xb")

    def write(self, chunk: bytes) -> None:
        with self._turn, _told(self._root, self._target):
            file = self._opened()
            file.write(chunk)
            self._hash.update(chunk)
            self.size_bytes += len(chunk)

    def sync(self) -> None:
        with self._turn, _told(self._root, self._target):
            self._sync()

    def finish(self, overwrite: bool) -> None:
        """Give the file its name."""
        with self._turn, _told(self._root, self._target):
            self._sync()
            if overwrite:
                self._part.replace(self._target)
            elif not self._link():
                return
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove what is left of it on the way."""
        with self._turn, _told(self._root, self._target):
            self._done = True
            if self._file is None:
                return
            with contextlib.suppress(OSError):  # what is still buffered has no room and is not wanted
                self._file.close()
            self._part.unlink(missing_ok=True)

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
        with contextlib.closing(_Reading(self._root, self._target)) as reading:
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


class _Reading:
    """A file on its way out. Python's own lock in buffered files keeps a late read and a close apart."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._file: BinaryIO | None = None
        self._closed = False
        self._turn = threading.Lock()

    def read(self) -> bytes:
        with self._turn, _told(self._root, self._path):
            if self._closed:
                return b""
            if self._file is None:
                _stay_inside(self._root, self._path)
                if not self._path.is_file():
                    raise ArtifactNotFound(f"nothing is stored at {self._path}")
                self._file = self._path.open("rb")
            return self._file.read(_CHUNK_BYTES)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            if self._file is not None:
                self._file.close()


def _remove(root: Path, path: Path) -> None:
    with _told(root, path):
        _stay_inside(root, path.parent)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageUnavailable(
            f"the store {root} is not a folder, or lies below a file", hint="set EMP_STORE to a folder"
        ) from error


def _stay_inside(root: Path, path: Path) -> None:
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


async def _in_chunks(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
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
def _told(root: Path, path: Path) -> Iterator[None]:
    """Say what an error of the system means."""
    try:
        yield
    except OSError as error:
        meaning = _meaning(error, root)
        raise meaning.error(f"cannot use {path} in the store {root}: {meaning.what}", hint=meaning.hint) from error
