"""`JobContext`: all that a connector knows of the rest of the system."""

import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from attrs import frozen

from emp_core.errors import InputError
from emp_core.jobs.inputs import InputPlace, InputRef, Place
from emp_core.jobs.model import Artifact, Job
from emp_core.log.logger import Logger, get_logger
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.names import artifact_key

if TYPE_CHECKING:  # what fetches files brings an HTTP client, which whoever submits jobs does not wait for
    from emp_core.inputs.fetching import JobInputs
    from emp_core.inputs.files import Input

_AT = "@"
_MOVED = re.compile(r"(.*)#(\d{1,3})", re.DOTALL)
_ANYTHING = ("*/*",)
_CHUNK_BYTES = 2**20

__all__ = ["JobContext", "Preview", "ProgressSink"]


@frozen
class Preview:
    """A picture of work in progress."""

    data: bytes
    media_type: str


class ProgressSink(Protocol):
    """Where progress goes. Coalesces: only the latest of what is told is sent on."""

    def __call__(self, percent: float, message: str | None, preview: Preview | None) -> None:
        """Take note of the latest progress, 0 to 100."""


class JobContext:
    """What a connector may do with the world while it processes one job.

    Attributes:
        job: the job.
        payload: its payload as the connector's payload class; as it came where there is none.
        attempt: the number of this attempt, from 1.
        deadline: when the attempt must be done, or None.
        service_job_id: the service's id of a run that an earlier attempt began and left, to be adopted if it still
            goes on; None otherwise.
        endpoint: which of several servers runs the job, by its name; at first, where an earlier attempt left a run. None
            where there is only one.
        moves: how often the job was begun again at another server because its own was lost, in all its attempts.
    """

    def __init__(
        self,
        job: Job,
        *,
        store: ArtifactStore,
        report: ProgressSink,
        save_checkpoint: Callable[[str], Awaitable[None]],
        inputs: "JobInputs | None" = None,
        warn: Callable[[str], Awaitable[None]] | None = None,
        secure_checkpoint: Callable[[str], Awaitable[None]] | None = None,
        put_out: Callable[[str], None] | None = None,
        is_handed_on: Callable[[], bool] = lambda: False,
        deadline: datetime | None = None,
        payload: Any = None,
    ) -> None:
        self.job = job
        self.payload: Any = job.payload if payload is None else payload
        self.attempt = job.attempt
        self.deadline = deadline
        self.service_job_id: str | None = None
        self.endpoint: str | None = None
        self.moves = 0
        if job.service_job_id is not None:
            self._take_up(job.service_job_id)
        self._store = store
        self._inputs = inputs
        self._report = report
        self._save_checkpoint = save_checkpoint
        self._warn = warn
        self._secure_checkpoint = secure_checkpoint or save_checkpoint
        self._put_out = put_out
        self._is_handed_on = is_handed_on
        self._percent = 0.0
        self._saved: list[Artifact] = []
        self._has_text = False

    def _take_up(self, checkpoint: str) -> None:
        run, at, endpoint = checkpoint.partition(_AT)
        self.service_job_id = run or None
        if at:
            moved = _MOVED.fullmatch(endpoint)
            self.endpoint, self.moves = (moved[1], int(moved[2])) if moved else (endpoint, 0)

    @cached_property
    def log(self) -> Logger:
        """A logger that names the job."""
        bound: Logger = get_logger("emp.job").bind(job=self.job.id, attempt=self.attempt)
        return bound

    async def progress(self, fraction: float, message: str | None = None, preview: Preview | None = None) -> None:
        """Tell how far the job is: ``fraction`` from 0 to 1. What goes backwards or beyond is held at the bounds."""
        self._percent = min(100.0, max(self._percent, fraction * 100.0))
        self._report(self._percent, message, preview)

    async def text(self, piece: str) -> None:
        """Put out text while it is made, piece by piece, for those who follow the job: its events ``text``, two a second.

        It is not kept beyond the run: what is to stay belongs into the result. A new attempt begins with no text.
        """
        self._has_text = True
        if self._put_out is not None:
            self._put_out(piece)

    async def warn(self, message: str) -> None:
        """Tell the user of trouble that the job survives: an event of the job, ``warned``, and a line of the log."""
        self.log.warning(message)
        if self._warn is not None:
            await self._warn(message)

    def run_at(self, endpoint: str, *, moves: int | None = None) -> None:
        """One of several servers runs the job from now on. Checkpoints name it, and only a run that was left there counts.

        Args:
            moves: how often the job was begun again elsewhere by now; checkpoints keep it. None: as often as before.
        """
        if endpoint != self.endpoint:
            self.endpoint, self.service_job_id = endpoint, None
        self.moves = self.moves if moves is None else moves

    @property
    def is_handed_on(self) -> bool:
        """Whether the job, while it is being stopped here, goes to another attempt, which may adopt its run.

        A run that must not be begun twice is left alone then; otherwise stopping stops the service's work, too.
        """
        return self._is_handed_on()

    @property
    def has_put_out(self) -> bool:
        """Whether an output was stored, or began to be, or text was put out: what cannot be taken back."""
        return bool(self._saved) or self._has_text

    async def save(
        self, data: bytes | AsyncIterable[bytes], name: str, media_type: str, *, metadata: dict[str, Any] | None = None
    ) -> Artifact:
        """Store an output of this job.

        Args:
            data: the bytes, or a stream of them.
            name: a file name; folders in it are kept below the job's own folder.
            media_type: its MIME type.
            metadata: facts for the result: node, kind, subfolder.

        Raises:
            UnsafeName: the name tries to leave its folder.
            StorageError: it could not be stored.
        """
        key = artifact_key(self.job, len(self._saved), name)
        # The index is taken before the upload, so that outputs stored side by side cannot get the same name.
        self._saved.append(Artifact(name, "", media_type, 0, "", {}))
        index = len(self._saved) - 1
        retention = self.job.ctx.retention if self.job.ctx is not None else None
        stored = await self._store.put(key, data, media_type=media_type, retention=retention)
        artifact = Artifact(
            name=name.rsplit("/", 1)[-1],
            url=stored.url,
            media_type=media_type,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            metadata=metadata or {},
        )
        self._saved[index] = artifact
        return artifact

    async def save_file(
        self,
        path: Path,
        media_type: str,
        *,
        name: str | None = None,
        remove: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> Artifact:
        """Store a file of this machine as an output of this job.

        Args:
            name: a file name; the path's own when not given.
            remove: whether the file goes when the store has confirmed that it holds it; until then it stays, whatever happens.
            metadata: as of `save`.

        Raises:
            UnsafeName, StorageError: as `save`.
            OSError: the file cannot be read.
        """
        artifact = await self.save(_chunks_of(path), name or path.name, media_type, metadata=metadata)
        if remove:
            try:
                await anyio.Path(path).unlink(missing_ok=True)
            except OSError as error:
                self.log.warning(
                    "an output is stored, and its local file cannot be removed", file=str(path), error=str(error)
                )
        return artifact

    async def fetch_input(self, ref: InputRef | Mapping[str, Any], *, accept: Sequence[str] = _ANYTHING) -> "Input":
        """A file that the job refers to, as a file on this machine. It is gone when the attempt ends.

        What is referred to twice is fetched once.

        Args:
            ref: the reference, or its form in payloads: ``{"$input": {…}}``.
            accept: the types that can be used: ``image/png``, ``image/*``.

        Raises:
            InputError: it cannot be used, or may not be.
            InputUnavailable: it could not be had now.
            StorageUnavailable: the artifact store does not work.
        """
        if not isinstance(ref, InputRef):
            try:
                ref = InputRef.from_payload(ref)
            except ValueError as error:
                raise InputError(f"a file cannot be used: {error}") from None
        return await self._taken.fetch(ref, accept=accept)

    async def inputs(self, *, accept: Sequence[str] = _ANYTHING) -> "dict[Place, Input]":
        """All files that the payload refers to, by the keys and indexes that lead to them; fetched side by side.

        Raises: as `fetch_input`; the message names the file's place in the payload.
        """
        return await self._taken.fetch_all(self.job.payload, accept=accept)

    async def replace_inputs(
        self,
        value: Any,
        make: "Callable[[InputPlace, Input], Awaitable[Any]]",
        *,
        at: Place = (),
        accept: Sequence[str] = _ANYTHING,
    ) -> Any:
        """A copy of a payload, or of a part of it, in which every reference to a file is replaced.

        Args:
            value: JSON; it stays as it is.
            make: gives what stands in the place of a file: the service's name of it after an upload, for example. Called
                side by side, for a few files at a time. What it raises, this raises.
            at: where ``value`` stands in the payload, if it is a part of it.
            accept: as of `fetch_input`.

        Raises: as `fetch_input`; the message names the file's place in the payload.
        """
        return await self._taken.replaced(value, make, at=at, accept=accept)

    @property
    def _taken(self) -> "JobInputs":
        if self._inputs is None:
            raise InputError("no files are taken here", hint="give JobContext inputs=, as a worker does")
        return self._inputs

    async def checkpoint(self, service_job_id: str, *, secure: bool = False) -> None:
        """Keep the service's id of this run in the job, so that a later attempt can adopt it.

        Args:
            secure: come back only when it is stored, however long that takes: for runs that must not be begun twice.
        """
        self.service_job_id = service_job_id
        keep = self._secure_checkpoint if secure else self._save_checkpoint
        await keep(service_job_id + self._where)

    @property
    def _where(self) -> str:
        """Which server a checkpoint is of, and how often the job has moved."""
        if not self.endpoint:
            return ""
        told = self.moves > 0 or _MOVED.fullmatch(self.endpoint)
        return f"{_AT}{self.endpoint}" + (f"#{self.moves}" if told else "")


async def _chunks_of(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK_BYTES):
            yield chunk
