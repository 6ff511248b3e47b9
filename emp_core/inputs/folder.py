"""The folders that inputs lie in while attempts run: private, and gone afterwards, whatever becomes of the worker."""

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from attrs import define, field, frozen

from emp_core.errors import InputUnavailable
from emp_core.log.logger import get_logger

__all__ = ["AttemptFolder", "WorkFolders"]

log = get_logger("emp.inputs")

_LOCKED = ".lock"


@define(eq=False)
class WorkFolders:
    """A worker's folder below ``root``, with one folder in it for each attempt that has files.

    The worker's folder has a lock that its process holds. A process that was killed holds none any more: the next worker
    that starts below the same root removes what it left.

    Everything is made when it is first needed: a worker whose jobs have no files writes nothing.
    """

    root: Path
    _own: "_Own | None" = field(default=None, init=False)
    _making: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def sweep(self) -> None:
        """Remove what workers left that were killed."""
        await run_sync(_sweep, self.root)

    async def aclose(self) -> None:
        """Remove the worker's folder. Attempts must be over."""
        own, self._own = self._own, None
        if own is not None:
            with anyio.CancelScope(shield=True):
                await run_sync(own.remove)

    async def make(self) -> Path:
        """A new folder for an attempt.

        Raises:
            InputUnavailable: the root cannot be written.
        """
        async with self._making:
            try:
                return await run_sync(self._make)
            except OSError as error:
                raise InputUnavailable(
                    f"files cannot be kept in {self.root}: {error.strerror or error}",
                    hint="make it writable for this user, or set EMP_DATA_DIR to another folder",
                ) from error

    def _make(self) -> Path:
        name = secrets.token_hex(8)
        if self._own is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody cleaned up
                return _make_private(self._own.path / name)
            self._own.remove()
        self._own = _Own.make(self.root)
        return _make_private(self._own.path / name)


@define(eq=False)
class AttemptFolder:
    """The folder of one attempt, made when it is first asked for a file. Whoever made it removes it."""

    _folders: WorkFolders
    _path: Path | None = field(default=None, init=False)
    _making: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def new_file(self) -> Path:
        """A path for a new file; nothing from outside is in its name."""
        async with self._making:
            if self._path is None:
                self._path = await self._folders.make()
        return self._path / secrets.token_hex(8)

    async def aclose(self) -> None:
        """Remove everything."""
        path, self._path = self._path, None
        if path is not None:
            with anyio.CancelScope(shield=True):  # local; and nobody else would remove it while this worker lives
                await run_sync(_remove, path)


@frozen
class _Own:
    """A worker's folder, and the lock that says that the worker lives."""

    path: Path
    lock_path: Path
    lock: int

    @classmethod
    def make(cls, root: Path) -> "_Own":
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            name = f"worker-{secrets.token_hex(8)}"
            lock_path = root / f"{name}{_LOCKED}"
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _lock(lock):
                break
            os.close(lock)  # a worker that starts just now took it for a dead one's, and removes it
        try:
            return cls(_make_private(root / name), lock_path, lock)
        except BaseException:
            os.close(lock)
            raise

    def remove(self) -> None:
        _remove(self.path)
        self.lock_path.unlink(missing_ok=True)
        os.close(self.lock)


def _make_private(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def _sweep(root: Path) -> None:
    for lock_path in sorted(root.glob(f"worker-*{_LOCKED}")):
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            if _lock(lock):
                log.info("files of a worker that was killed are removed", folder=str(lock_path.with_suffix("")))
                _remove(lock_path.with_suffix(""))
                lock_path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _lock(descriptor: int) -> bool:
    """Take a lock for this process; False: another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("files of a job could not be removed", folder=str(path), error=str(error))
