"""Artifacts as objects in a bucket of S3, or of a service that speaks as S3 does."""

import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, TypeVar

import anyio
import obstore
from anyio.to_thread import run_sync
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as Bucket

from emp_core.errors import ArtifactNotFound, StorageError, StorageRefused, StorageUnavailable
from emp_core.storage.blocks import read_ranges, the_same
from emp_core.storage.interface import StoredObject
from emp_core.storage.metadata import check_retention, known_by, media_type_header, metadata_of
from emp_core.storage.place import Place
from emp_core.storage.s3_access import S3Access
from emp_core.storage.spool import Spool
from emp_core.storage.trying import Patience, persist, said

__all__ = ["S3Store"]

T = TypeVar("T")

_BLOCK_BYTES = 5 * 2**20  # the least that a part may have
_READ_BYTES = 4 * 2**20
_THREADS = 8
_CHECK = ".emp-check"
_REQUEST_S = timedelta(seconds=60)
_GIVE_UP_S = 10.0


class S3Store:
    """An artifact store in a bucket.

    obstore's calls block, so each runs in a thread: its asynchronous ones have aborted processes at their end. A file of up
    to 5 MiB is put in one request. A longer one is kept in a temporary file first, because its checksum has to be known
    when the upload begins, and then put in parts. Two that put one long name at the same moment are not told apart: one
    of them is there, whole. A bucket that is not there is not made.

    Args:
        place: the bucket, and the prefix within it.
    """

    def __init__(self, place: Place, access: S3Access, *, patience: Patience | None = None) -> None:
        self._place = place
        self._access = access
        self._patience = patience or Patience()
        self._bucket = _open_bucket(place.container, access)
        self._threads = anyio.CapacityLimiter(_THREADS)

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str]) -> Self:
        """The store of a URL, ``s3://bucket/prefix``, with the access that the environment's variables name.

        Raises:
            ConfigError: the URL or the variables cannot be used.
        """
        return cls(Place.of(url), S3Access.from_environ(environ))

    def __repr__(self) -> str:
        return f"S3Store({str(self._place)!r}, endpoint={self._access.endpoint!r})"

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
            ArtifactExists: the key holds other bytes, and ``overwrite`` is false.
            StorageUnavailable: the service cannot be reached, or refuses us; or there is no room for a temporary file.
        """
        name = self._place.name(key)
        retention = check_retention(retention)
        async with Spool(_BLOCK_BYTES) as spool:
            await spool.take(data)
            put = partial(
                obstore.put,
                self._bucket,
                name,
                attributes={
                    "Content-Type": media_type_header(media_type),
                    **metadata_of(spool.digest.sha256, retention),
                },
            )
            if spool.only is None:
                there = None if overwrite else await self._find(key)
                if there is not None:
                    return the_same(there, spool.digest)
                await self._do(f"store {key}", lambda: self._until_stopped(partial(_put_parts, put, spool)), ours=False)
                return await self.stat(key)
            only, mode = spool.only, "overwrite" if overwrite else "create"
            try:
                await self._do(f"store {key}", lambda: self._thread(partial(put, only, mode=mode)), ours=False)
            except AlreadyExistsError:
                # By somebody else, or by our own try whose answer was lost.
                return the_same(await self.stat(key), spool.digest)
            return await self.stat(key)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
            StorageError: it was damaged, or overwritten meanwhile.
        """
        name = self._place.name(key)
        stored, etag = await self._head(key)

        async def fetch(begin: int, end: int) -> bytes:
            def once() -> bytes:
                found = obstore.get(self._bucket, name, options={"range": (begin, end), "if_match": etag})
                return found.bytes().to_bytes()

            block: bytes = await self._do(f"read {key}", lambda: self._thread(once))
            return block

        async for block in read_ranges(stored, _READ_BYTES, fetch):
            yield block

    async def stat(self, key: str) -> StoredObject:
        """What is known of a file.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        stored, _ = await self._head(key)
        return stored

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        """The objects that were put here, in the order of their names. A listing does not tell whose an object is, so each
        one that is old enough is asked for."""
        begin = self._place.begins(prefix)
        last: str | None = None
        while page := await self._do("list objects", partial(self._page, begin, last)):
            last = page[-1]["path"]
            names = [
                one["path"]
                for one in page
                if one["path"].startswith(begin) and (stored_before is None or one["last_modified"] < stored_before)
            ]
            for stored in await self._all_found([self._place.key(name) for name in names]):
                if stored.sha256:
                    yield stored

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        name = self._place.name(key)
        try:
            await self._do(f"delete {key}", lambda: self._thread(partial(obstore.delete, self._bucket, name)))
        except ArtifactNotFound:
            return

    async def sign(self, key: str, *, expires_in_s: float) -> str:
        """An address whose signature allows to read this one file, until it expires.

        Raises:
            UnsafeName: the key tries to leave the store.
        """
        name, time = self._place.name(key), timedelta(seconds=expires_in_s)
        address: str = await self._do(
            f"sign {key}", lambda: self._thread(partial(obstore.sign, self._bucket, "GET", name, time)), ours=False
        )
        return address

    async def check(self) -> None:
        """Find out whether the bucket can be written, by an upload that is begun and given up.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        name = self._place.name(_CHECK)

        def begin() -> None:
            try:
                obstore.put(self._bucket, name, _given_up(), use_multipart=True)
            except _GivenUp:
                return

        await self._do("write", lambda: self._thread(begin), ours=False)

    async def aclose(self) -> None:
        """Nothing is kept open that would have to be closed."""

    async def _head(self, key: str) -> tuple[StoredObject, str | None]:
        name = self._place.name(key)

        def ask() -> tuple[Any, Mapping[str, str]]:
            found = obstore.get(self._bucket, name, options={"head": True})
            return found.meta, found.attributes

        meta, attributes = await self._do(f"find {key}", lambda: self._thread(ask))
        sha256, retention = known_by(attributes)
        stored = StoredObject(
            key=key,
            url=self._place.url(self._access.endpoint, key),
            media_type=attributes.get("Content-Type", "application/octet-stream"),
            size_bytes=meta["size"],
            sha256=sha256,
            stored_at=meta["last_modified"],
            retention=retention,
        )
        return stored, meta["e_tag"]

    async def _find(self, key: str) -> StoredObject | None:
        try:
            return await self.stat(key)
        except ArtifactNotFound:
            return None

    async def _all_found(self, keys: Sequence[str]) -> list[StoredObject]:
        found: dict[str, StoredObject | None] = {}

        async def find(key: str) -> None:
            found[key] = await self._find(key)

        for at in range(0, len(keys), _THREADS):
            try:
                async with anyio.create_task_group() as group:
                    for key in keys[at : at + _THREADS]:
                        group.start_soon(find, key)
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
        return [one for key in keys if (one := found[key]) is not None]

    async def _page(self, begin: str, last: str | None) -> Sequence[Mapping[str, Any]]:
        """Objects after ``last``, of the folder that names beginning with ``begin`` are in."""
        folder = begin.rpartition("/")[0]

        def ask() -> Sequence[Mapping[str, Any]]:
            pages = obstore.list(self._bucket, folder or None, offset=last, chunk_size=1000)
            return next(iter(pages), [])

        return await self._thread(ask)

    async def _do(self, what: str, call: Callable[[], Any], *, ours: bool = True) -> Any:
        """Call, again where it may help, and say what an error means.

        Args:
            ours: whether what is not found is the file; else it is the bucket.
        """
        with self._meant(what, ours=ours):
            return await persist(call, patience=self._patience, may_pass=_may_pass, store=str(self._place), doing=what)

    @contextmanager
    def _meant(self, what: str, *, ours: bool) -> Iterator[None]:
        failed = f"cannot {what} in {self._place} at {self._access.endpoint}"
        try:
            yield
        except AlreadyExistsError:
            raise
        except FileNotFoundError as error:
            if ours:
                raise ArtifactNotFound(f"{failed}: there is none") from error
            raise StorageRefused(f"{failed}: there is no such bucket", hint="create it, or correct its name") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageRefused(
                f"{failed}: the service does not accept {self._access.how}",
                hint="see whether the secret belongs to it, and whether it may read, write, list and delete",
            ) from error
        except GenericError as error:
            raise StorageUnavailable(
                f"{failed}: the service cannot be reached, or does not answer as it should ({said(error)})",
                hint="see to the network, and to AWS_ENDPOINT_URL and AWS_REGION",
            ) from error
        except BaseError as error:
            raise StorageError(f"{failed}: {said(error)}") from error

    async def _thread(self, call: Callable[[], T]) -> T:
        # Whoever is cancelled does not wait: a thread cannot be stopped, and each call does its work whole or not at all.
        return await run_sync(call, abandon_on_cancel=True, limiter=self._threads)

    async def _until_stopped(self, call: Callable[[threading.Event], T]) -> T:
        """Run in a thread what takes long. Cancelled, it is told to stop, and waited for as long as that takes."""
        stop, begun, ended = threading.Event(), threading.Event(), threading.Event()

        def run() -> T:
            begun.set()
            try:
                return call(stop)
            finally:
                ended.set()

        try:
            return await self._thread(run)
        finally:
            stop.set()
            if begun.is_set() and not ended.is_set():
                with anyio.CancelScope(shield=True):
                    await run_sync(ended.wait, _GIVE_UP_S)


class _GivenUp(Exception):
    """Ends an upload that shall not come to anything."""


def _given_up() -> Iterator[bytes]:
    raise _GivenUp
    yield b""  # what makes it an iterator


def _put_parts(put: Callable[..., Any], spool: Spool, stop: threading.Event) -> None:
    def chunks() -> Iterator[bytes]:
        for chunk in spool.chunks():
            if stop.is_set():
                raise _GivenUp
            yield chunk

    put(chunks(), use_multipart=True, chunk_size=_BLOCK_BYTES, max_concurrency=2)


def _may_pass(error: BaseException) -> bool:
    """The service is busy, or the network failed; the library has one type for both, and for all else that it knows no better."""
    return isinstance(error, GenericError)


def _open_bucket(name: str, access: S3Access) -> Bucket:
    options: dict[str, Any] = {}
    if access.access_key_id is not None:
        # Not as configuration: to that, the library adds what it finds in the process's environment.
        proof = {
            "access_key_id": access.access_key_id,
            "secret_access_key": access.secret_access_key,
            "token": access.session_token,
            "expires_at": None,
        }
        options["credential_provider"] = lambda: proof
    return Bucket(
        name,
        config={"region": access.region, "endpoint": access.endpoint},
        client_options={"allow_http": access.endpoint.startswith("http://"), "timeout": _REQUEST_S},
        retry_config={"max_retries": 0},  # we try again ourselves, and say so
        **options,
    )
