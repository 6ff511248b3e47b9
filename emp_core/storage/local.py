"""Artifacts as files below one folder of this machine."""

import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NoReturn

import anyio
from anyio.to_thread import run_sync

from emp_core.errors import ArtifactNotFound, CannotSign, UnsafeName
from emp_core.storage.interface import StoredObject
from emp_core.storage.local_facts import FACTS_FOLDER, Facts, FactsFolder
from emp_core.storage.local_files import Reading, Upload, in_chunks, stay_inside, told
from emp_core.storage.names import safe_key

__all__ = ["LocalStore"]

_BATCH = 100


class LocalStore:
    """An artifact store in a folder, which is made when it is first needed.

    A file appears under its name when it is whole and on the disk, never before. Nothing is read or written outside of
    the folder, whatever keys or symbolic links say. What else is known of a file lies in the folder ``.emp``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._facts = FactsFolder(self.root)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: str,
        overwrite: bool = False,
        retention: str | None = None,
    ) -> StoredObject:
        """Store a file.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactExists: the key holds other bytes, and ``overwrite`` is false; or it is a folder.
            StorageUnavailable: the folder cannot be written now; says what to do.
        """
        target = self._path(key)
        upload = Upload(self.root, target)
        try:
            await run_sync(upload.begin)
            async for chunk in in_chunks(data):
                await run_sync(upload.write, chunk)
            return await run_sync(self._finish, upload, overwrite, safe_key(key), media_type, retention)
        finally:
            with anyio.CancelScope(shield=True):  # local and short
                await run_sync(upload.discard)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        reading = Reading(self.root, self._path(key))
        try:
            while chunk := await run_sync(reading.read):
                yield chunk
        finally:
            reading.close()

    async def stat(self, key: str) -> StoredObject:
        """What is known of a file.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        return await run_sync(self._stat, self._path(key), safe_key(key))

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        """The files that were put here, folder by folder."""
        found = self._walk(prefix, stored_before)
        while batch := await run_sync(lambda: list(islice(found, _BATCH))):
            for one in batch:
                yield one

    async def delete(self, key: str) -> None:
        """Remove a file, and the folders that are empty then; one that is not there is no error."""
        await run_sync(self._remove, self._path(key), safe_key(key))

    async def sign(self, key: str, *, expires_in_s: float) -> NoReturn:
        """Refused: a file has no address for people without an account.

        Raises:
            UnsafeName: the key tries to leave the store.
            CannotSign: always.
        """
        del expires_in_s
        raise CannotSign(
            f"{self._path(key)} is a file of this machine, and has no signed address",
            hint="copy the file, or keep artifacts in a store such as azure:// or s3://",
        )

    async def check(self) -> None:
        """Find out whether the store can be written, by writing.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        upload = Upload(self.root, self.root / "check")
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
        safe = safe_key(key)
        # Whatever the file system makes of capitals: macOS takes both for one.
        if safe.split("/", 1)[0].lower() == FACTS_FOLDER:
            raise UnsafeName(f"the name {safe[:200]!r} begins with {FACTS_FOLDER}, which is the store's own folder")
        return self.root / safe

    def _finish(
        self, upload: Upload, overwrite: bool, key: str, media_type: str, retention: str | None
    ) -> StoredObject:
        path = self._path(key)
        if upload.finish(overwrite):
            with told(self.root, self.root / FACTS_FOLDER):
                self._facts.write(Facts(key, media_type, upload.size_bytes, upload.sha256, retention))
        return self._stat(path, key)

    def _stat(self, path: Path, key: str) -> StoredObject:
        with told(self.root, path):
            stay_inside(self.root, path)
            if not path.is_file():
                raise ArtifactNotFound(f"nothing is stored at {path}")
            return self._described(path, key)

    def _described(self, path: Path, key: str) -> StoredObject:
        found = path.stat()
        facts = self._facts.read(key)
        if facts is None or facts.size_bytes != found.st_size:  # or somebody put another file in its place
            facts = Facts(key, "application/octet-stream", found.st_size, "", None)
        return StoredObject(
            key=key,
            url=path.as_uri(),
            media_type=facts.media_type,
            size_bytes=facts.size_bytes,
            sha256=facts.sha256,
            stored_at=datetime.fromtimestamp(found.st_mtime, UTC),
            retention=facts.retention,
        )

    def _walk(self, prefix: str, stored_before: datetime | None) -> Iterator[StoredObject]:
        with told(self.root, self.root):
            # Links are not followed, neither to folders nor to files.
            for folder, folders, names in os.walk(self.root, onerror=_refuse_unless_gone):
                at = Path(folder)
                below = "" if at == self.root else f"{at.relative_to(self.root).as_posix()}/"
                if not below:
                    folders[:] = [name for name in folders if name.lower() != FACTS_FOLDER]
                folders[:] = sorted(name for name in folders if _may_hold(f"{below}{name}/", prefix))
                for name in sorted(names):
                    if not f"{below}{name}".startswith(prefix):
                        continue
                    one = self._ours(at / name, below + name, stored_before)
                    if one is not None:
                        yield one

    def _ours(self, path: Path, key: str, stored_before: datetime | None) -> StoredObject | None:
        try:
            if path.is_symlink() or (stored_before is not None and path.stat().st_mtime >= stored_before.timestamp()):
                return None
            found = self._described(path, key)
        except FileNotFoundError:  # deleted since the folder was read
            return None
        return found if found.sha256 else None

    def _remove(self, path: Path, key: str) -> None:
        with told(self.root, path):
            stay_inside(self.root, path.parent)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                self._facts.remove(key)
                _remove_empty_folders(path.parent, self.root)


def _remove_empty_folders(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:  # it holds something, or somebody else removed it
            return
        folder = folder.parent


def _may_hold(folder: str, prefix: str) -> bool:
    """Whether names that begin with ``prefix`` may lie below ``folder``, which ends with a slash."""
    return folder.startswith(prefix) or prefix.startswith(folder)


def _refuse_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
