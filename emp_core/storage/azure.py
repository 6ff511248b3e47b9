"""Artifacts as blobs in a container of Azure Blob Storage."""

import base64
import io
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

from attrs import define, field
from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobProperties, BlobSasPermissions, ContentSettings, generate_blob_sas
from azure.storage.blob.aio import BlobClient

from emp_core.errors import ArtifactNotFound, CannotSign
from emp_core.network.guard import Guard
from emp_core.storage.azure_access import AzureAccess
from emp_core.storage.azure_client import AzureClient
from emp_core.storage.azure_errors import is_conflict, may_pass, meant
from emp_core.storage.blocks import Digest, blocks_of, read_ranges, the_same
from emp_core.storage.interface import StoredObject
from emp_core.storage.metadata import check_retention, known_by, media_type_header, metadata_of
from emp_core.storage.place import Place
from emp_core.storage.trying import Patience, persist

__all__ = ["AzureStore"]

T = TypeVar("T")

_BLOCK_BYTES = 4 * 2**20
_WHOLE_BYTES = 2**20
_CLOCKS_APART = timedelta(minutes=5)
_LONGEST_BY_IDENTITY_S = 7 * 86400
_CHECK = ".emp-check"


class AzureStore:
    """An artifact store in a container.

    A short file is put in one request; a longer one block by block, and named in one request when all are there. Every
    block carries its MD5, which the service checks. What is given up leaves blocks that nobody sees, and that Azure
    removes after a week. A container that is not there is not made.

    Args:
        place: the container, and the prefix within it.
        guard: for an account that a job brought: looks at every address that is connected to.
    """

    def __init__(
        self, place: Place, access: AzureAccess, *, guard: Guard | None = None, patience: Patience | None = None
    ) -> None:
        self._place = place
        self._access = access
        self._client = AzureClient(access, place.container, guard)
        self._patience = patience or Patience()

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str]) -> Self:
        """The store of a URL, ``azure://container/prefix``, with the account that the environment's variables name.

        Raises:
            ConfigError: the URL or the variables cannot be used.
        """
        return cls(Place.of(url), AzureAccess.from_environ(environ))

    def __repr__(self) -> str:
        return f"AzureStore({str(self._place)!r}, account={self._access.account!r})"

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
            StorageUnavailable: the account cannot be reached, or refuses us.
        """
        blob = self._client.blob(self._place.name(key))
        upload = _Upload(blob, check_retention(retention), media_type_header(media_type), overwrite)
        there: StoredObject | None = None
        last = b""
        number = 0
        async for block in blocks_of(data, _BLOCK_BYTES):
            if number == 1 and not overwrite:
                there = await self._find(key)  # before much is sent in vain
            if number > 0 and there is None:
                await self._stage(key, upload, last)
            await upload.digest.add(block)
            last, number = block, number + 1
        if there is not None:
            return the_same(there, upload.digest)
        if number == 1 and len(last) <= _WHOLE_BYTES:
            return await self._name(key, upload, lambda: upload.whole(last))
        await self._stage(key, upload, last)
        return await self._name(key, upload, upload.commit)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
            StorageError: it was damaged, or overwritten meanwhile.
        """
        blob = self._client.blob(self._place.name(key))
        found = await self._do(f"read {key}", blob.get_blob_properties)

        async def fetch(begin: int, end: int) -> bytes:
            async def once() -> bytes:
                unchanged = MatchConditions.IfNotModified
                given = await blob.download_blob(begin, end - begin, etag=found.etag, match_condition=unchanged)
                return await given.readall()

            return await self._do(f"read {key}", once)

        async for block in read_ranges(self._described(key, found), _BLOCK_BYTES, fetch):
            yield block

    async def stat(self, key: str) -> StoredObject:
        """What is known of a file.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        blob = self._client.blob(self._place.name(key))
        return self._described(key, await self._do(f"find {key}", blob.get_blob_properties))

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        """The blobs that were put here, in the order of their names."""
        begin, token = self._place.begins(prefix), None
        while True:
            page, token = await self._do("list blobs", lambda token=token: self._page(begin, token))  # type: ignore[misc]
            for found in page:
                described = self._described(self._place.key(found.name), found)
                is_ours = described.sha256 and found.name.startswith(begin)
                if is_ours and (stored_before is None or found.last_modified < stored_before):
                    yield described
            if not token:
                return

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        blob = self._client.blob(self._place.name(key))
        try:
            await self._do(f"delete {key}", lambda: blob.delete_blob(delete_snapshots="include"))
        except ArtifactNotFound:
            return

    async def sign(self, key: str, *, expires_in_s: float) -> str:
        """An address with a shared access signature that allows to read this one file, until it expires.

        Raises:
            UnsafeName: the key tries to leave the store.
            CannotSign: the store was opened with a shared access signature itself.
        """
        name = self._place.name(key)
        now = datetime.now(UTC)
        expires = now + timedelta(seconds=expires_in_s)
        by: dict[str, Any] = {"account_key": self._access.key}
        if self._access.sas_token is not None:
            raise CannotSign(
                f"{self!r} was opened with a shared access signature, which signs nothing",
                hint="open it with the account key or with the machine's identity",
            )
        if self._access.key is None:
            if expires_in_s > _LONGEST_BY_IDENTITY_S:
                raise CannotSign("what an identity signs expires after 7 days at most", hint="ask for a shorter time")
            asked = lambda: self._client.service.get_user_delegation_key(now - _CLOCKS_APART, expires)  # noqa: E731
            by = {"user_delegation_key": await self._do("sign", asked)}
        signature = generate_blob_sas(
            self._access.account,
            self._place.container,
            name,
            permission=BlobSasPermissions(read=True),
            start=now - _CLOCKS_APART,
            expiry=expires,
            **by,
        )
        return f"{self._url(key)}?{signature}"

    async def check(self) -> None:
        """Find out whether the container can be written, by a block that never becomes a blob.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        blob = self._client.blob(self._place.name(_CHECK))
        await self._do("write", lambda: blob.stage_block(_block_id("check", 0), b"check"))

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _stage(self, key: str, upload: "_Upload", block: bytes) -> None:
        await self._do(f"store {key}", lambda: upload.stage(block))
        upload.blocks += 1

    async def _name(self, key: str, upload: "_Upload", call: Callable[[], Awaitable[dict[str, Any]]]) -> StoredObject:
        try:
            told = await self._persist(f"store {key}", call)
        except AzureError as error:
            with self._meant(f"store {key}"):
                if upload.overwrite or not is_conflict(error):
                    raise
            # By somebody else, or by our own try whose answer was lost.
            return the_same(await self.stat(key), upload.digest)
        return StoredObject(
            key=key,
            url=self._url(key),
            media_type=upload.media_type,
            size_bytes=upload.digest.size_bytes,
            sha256=upload.digest.sha256,
            stored_at=told["last_modified"],
            retention=upload.retention,
        )

    async def _find(self, key: str) -> StoredObject | None:
        try:
            return await self.stat(key)
        except ArtifactNotFound:
            return None

    async def _page(self, begin: str, token: str | None) -> tuple[list[BlobProperties], str | None]:
        pages = self._client.container.list_blobs(begin, include=["metadata"]).by_page(token)
        async for page in pages:
            return [found async for found in page], getattr(pages, "continuation_token", None)
        return [], None

    def _described(self, key: str, found: BlobProperties) -> StoredObject:
        sha256, retention = known_by(found.metadata)
        return StoredObject(
            key=key,
            url=self._url(key),
            media_type=found.content_settings.content_type or "application/octet-stream",
            size_bytes=found.size,
            sha256=sha256,
            stored_at=found.last_modified,
            retention=retention,
        )

    def _url(self, key: str) -> str:
        return self._place.url(self._access.endpoint, key)

    async def _do(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        with self._meant(what):
            return await self._persist(what, call)

    async def _persist(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        return await persist(call, patience=self._patience, may_pass=may_pass, store=str(self._place), doing=what)

    def _meant(self, what: str) -> Any:
        return meant(what, f"{self._place} of the account {self._access.account}", self._access.how)


@define
class _Upload:
    """A file on its way in."""

    blob: BlobClient
    retention: str | None
    media_type: str
    overwrite: bool
    digest: Digest = field(factory=Digest)
    blocks: int = 0
    _token: str = field(factory=lambda: secrets.token_hex(8))

    async def stage(self, block: bytes) -> None:
        # Not as bytes: those would be sent in one go, and hold up the event loop.
        body = io.BytesIO(block)
        await self.blob.stage_block(_block_id(self._token, self.blocks), body, len(block), validate_content=True)

    async def whole(self, data: bytes) -> dict[str, Any]:
        return await self.blob.upload_blob(
            data, length=len(data), overwrite=self.overwrite, validate_content=True, **self._facts()
        )

    async def commit(self) -> dict[str, Any]:
        ids = [BlobBlock(_block_id(self._token, number)) for number in range(self.blocks)]
        condition = None if self.overwrite else MatchConditions.IfMissing
        return await self.blob.commit_block_list(ids, match_condition=condition, **self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "metadata": metadata_of(self.digest.sha256, self.retention),
            "content_settings": ContentSettings(content_type=self.media_type),
        }


def _block_id(token: str, number: int) -> str:
    """All of one blob have to be of one length."""
    return base64.b64encode(f"{token:.16}-{number:06}".ljust(24).encode()).decode()
