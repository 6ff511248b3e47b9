"""From a reference in a payload to a file on this machine."""

import contextlib
import hashlib
import io
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio
from anyio.to_thread import run_sync
from attrs import define, field, frozen

from emp_core.errors import InputError, InputUnavailable
from emp_core.inputs.files import Input, Source, safe_name
from emp_core.inputs.folder import AttemptFolder
from emp_core.inputs.media_types import HEAD_BYTES, extension_of, is_accepted, settled_type
from emp_core.jobs.inputs import InputPlace, InputRef, Place, inputs_of, with_values
from emp_core.jobs.model import Job
from emp_core.storage.interface import ArtifactStore

if TYPE_CHECKING:  # it makes these
    from emp_core.inputs.taking import InputTaking

__all__ = ["JobInputs"]

_AT_ONCE = 4
_PIECE_BYTES = 256 * 1024
_ANYTHING = ("*/*",)


@define(eq=False)
class _Open:
    """What an attempt has once it fetches a file: most never do, and cost nothing."""

    folder: AttemptFolder
    left: int
    """Bytes that its files may have yet, all together."""
    known: "dict[InputRef, _Once]" = field(factory=dict)
    turns: anyio.CapacityLimiter = field(factory=lambda: anyio.CapacityLimiter(_AT_ONCE))


@define(eq=False)
class JobInputs:
    """The files of one attempt. What is referred to twice is fetched once.

    Args:
        taking: what takes the files of all jobs.
        own_store: the store that the job brought with it.
    """

    _taking: "InputTaking"
    _job: Job
    _own_store: ArtifactStore | None
    _open: _Open | None = field(init=False, default=None)

    async def aclose(self) -> None:
        """Remove all files."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.folder.aclose()

    async def fetch(self, ref: InputRef, *, accept: Sequence[str] = _ANYTHING) -> Input:
        """Have a file on this machine.

        Args:
            accept: the types that can be used: ``image/png``, ``image/*``.

        Raises:
            InputError: it cannot be used, or may not be.
            InputUnavailable: it could not be had now.
            StorageUnavailable: the artifact store does not work.
        """
        opened = self._open = self._open or _Open(AttemptFolder(self._taking.folders), self._taking.max_bytes)
        once = opened.known.setdefault(ref, _Once())
        async with once.lock:
            if once.found is None:
                async with opened.turns:
                    once.found = await self._fetch(ref, opened)
        found, types = once.found.file, once.found.types
        if not any(is_accepted(one, accept) for one in types):
            raise InputError(
                f"{found.name} is {found.media_type}, and {' or '.join(accept)} is needed here",
                details={"reason": "media_type", "media_type": found.media_type},
            )
        return found

    async def fetch_all(self, payload: Any, *, accept: Sequence[str] = _ANYTHING) -> dict[Place, Input]:
        """All files of a payload, by their places; fetched side by side."""

        async def as_it_is(_: InputPlace, found: Input) -> Input:
            return found

        return await self._each(payload, as_it_is, accept, ())

    async def replaced(
        self,
        value: Any,
        make: Callable[[InputPlace, Input], Awaitable[Any]],
        *,
        at: Place = (),
        accept: Sequence[str] = _ANYTHING,
    ) -> Any:
        """A copy of a payload, with what ``make`` makes of each file in its place; side by side, a few at a time.

        Args:
            at: where ``value`` stands in the payload, if it is a part of it.
        """
        made = await self._each(value, make, accept, at)
        return with_values(value, {place[len(at) :]: one for place, one in made.items()})

    async def _each(
        self, value: Any, make: Callable[[InputPlace, Input], Awaitable[Any]], accept: Sequence[str], at: Place
    ) -> dict[Place, Any]:
        places, problems = inputs_of(value, at=at)
        if problems:
            raise InputError(f"the job's files cannot be used: {'; '.join(problems)}", details={"problems": problems})
        made: dict[Place, Any] = {}
        turns = anyio.CapacityLimiter(_AT_ONCE)

        async def one(found: InputPlace) -> None:
            async with turns:
                with _placed(found):
                    made[found.place] = await make(found, await self.fetch(found.ref, accept=accept))

        try:
            async with anyio.create_task_group() as group:
                for found in places:
                    group.start_soon(one, found)
        except ExceptionGroup as failures:
            raise _the_failure(failures) from None
        return made

    async def _fetch(self, ref: InputRef, opened: _Open) -> "_Found":
        taken: list[_Found] = []

        async def take(source: Source) -> None:
            taken.append(await self._take(ref, source, opened))

        match ref.source:
            case "url":
                await self._taking.web.fetch(ref.at, take)
            case "artifact":
                await take(await self._taking.artifacts_of(self._job, self._own_store).open(ref.at))
            case "base64":
                await take(Source(_read(io.BytesIO(b64decode(ref.at)))))
            case "path":
                with contextlib.closing(await run_sync(self._taking.paths.open, ref.at)) as file:
                    await take(Source(_read(file), name=PurePosixPath(ref.at).name))
        return taken[-1]

    async def _take(self, ref: InputRef, source: Source, opened: _Open) -> "_Found":
        """Write a file down while it comes, and look at it."""
        self._check_size(ref, source.size_bytes or 0, opened.left)
        written = _Written(await opened.folder.new_file())
        try:
            async for piece in _in_pieces(source.chunks):
                self._check_size(ref, written.size_bytes + len(piece), written.size_bytes + opened.left)
                # Before it is written: files that come side by side share what is left.
                opened.left -= len(piece)
                written.size_bytes += len(piece)
                await run_sync(written.add, piece)
            return _looked_at(written, ref, source)
        except BaseException:
            opened.left += written.size_bytes
            raise
        finally:
            with anyio.CancelScope(shield=True):  # local and short
                await run_sync(written.close)

    def _check_size(self, ref: InputRef, size_bytes: int, left: int) -> None:
        if ref.max_bytes is not None and size_bytes > ref.max_bytes:
            raise InputError(
                f"the file has more than the {ref.max_bytes:,} bytes that its max_bytes allows",
                details={"reason": "too_large", "limit_bytes": ref.max_bytes},
            )
        if size_bytes > left:
            raise InputError(
                f"the job's files have more than {self._taking.max_bytes:,} bytes together",
                hint="EMP_INPUT_MAX_BYTES says how many this worker takes",
                details={"reason": "too_large", "limit_bytes": self._taking.max_bytes},
            )


@define(eq=False)
class _Once:
    """A file that may be asked for several times."""

    lock: anyio.Lock = field(factory=anyio.Lock)
    found: "_Found | None" = None


@frozen
class _Found:
    """A file, and what it may be: two types where its bytes leave open whether it is pictures or sound alone."""

    file: Input
    types: tuple[str, ...]


class _Written:
    """A file that is being written, with its checksum and its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.head = b""
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, piece: bytes) -> None:
        try:
            if self._file is None:
                self._file = self.path.open("xb")
            self._file.write(piece)
            self._file.flush()
        except OSError as error:
            raise InputUnavailable(
                f"a file could not be kept in {self.path.parent}: {error.strerror or error}",
                hint="free some space, or set EMP_DATA_DIR to a folder on another disk",
            ) from error
        self._hash.update(piece)
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _looked_at(written: _Written, ref: InputRef, source: Source) -> _Found:
    if written.size_bytes == 0:
        raise InputError("the file is empty", details={"reason": "empty"})
    if ref.sha256 is not None and ref.sha256 != written.sha256:
        raise InputError(
            "the file is not the one that was meant: its checksum is another",
            details={"reason": "sha256", "sha256": written.sha256},
        )
    name = ref.name or safe_name(source.name)
    try:
        types = settled_type(written.head, said=ref.media_type, told=source.media_type, name=name)
    except ValueError as error:
        raise InputError(f"{name or 'the file'}: {error}", details={"reason": "media_type"}) from None
    if "." not in name:
        name = (name or "input") + extension_of(types[0])
    return _Found(Input(name, types[0], written.size_bytes, written.sha256, written.path), types)


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await run_sync(file.read, _PIECE_BYTES):
        yield piece


async def _in_pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks put together to what is worth a trip to a thread."""
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


@contextlib.contextmanager
def _placed(at: InputPlace) -> Iterator[None]:
    """Say of an error which of the job's files it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(
            f"{at}: {error.message}", hint=error.hint, details={**error.details, "input": str(at)}
        ) from error


def _the_failure(group: ExceptionGroup[Exception]) -> Exception:
    """The one failure that decides, of those that came together: one that no other attempt can mend goes first."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if not isinstance(leaf, InputUnavailable)), leaves[0])


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
