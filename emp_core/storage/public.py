"""A store whose files the public reaches under another address: through a content delivery network."""

from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime
from urllib.parse import quote

from attrs import evolve

from emp_core.storage.interface import ArtifactStore, StoredObject

__all__ = ["PublicStore"]


class PublicStore:
    """The store within, with addresses below another base. Signed addresses stay those of the store itself.

    Args:
        base: the public address of the store's root: a key is appended to it.
    """

    def __init__(self, inner: ArtifactStore, base: str) -> None:
        self._inner = inner
        self._base = base.rstrip("/")

    def __repr__(self) -> str:
        return f"PublicStore({self._inner!r}, {self._base!r})"

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: str,
        overwrite: bool = False,
        retention: str | None = None,
    ) -> StoredObject:
        """As the store within."""
        stored = await self._inner.put(key, data, media_type=media_type, overwrite=overwrite, retention=retention)
        return self._public(stored)

    def open(self, key: str) -> AsyncIterator[bytes]:
        """As the store within."""
        return self._inner.open(key)

    async def stat(self, key: str) -> StoredObject:
        """As the store within."""
        return self._public(await self._inner.stat(key))

    async def list_objects(
        self, prefix: str = "", *, stored_before: datetime | None = None
    ) -> AsyncIterator[StoredObject]:
        """As the store within."""
        async for stored in self._inner.list_objects(prefix, stored_before=stored_before):
            yield self._public(stored)

    async def delete(self, key: str) -> None:
        """As the store within."""
        await self._inner.delete(key)

    async def sign(self, key: str, *, expires_in_s: float) -> str:
        """As the store within."""
        return await self._inner.sign(key, expires_in_s=expires_in_s)

    async def check(self) -> None:
        """As the store within."""
        await self._inner.check()

    async def aclose(self) -> None:
        """As the store within."""
        await self._inner.aclose()

    def _public(self, stored: StoredObject) -> StoredObject:
        return evolve(stored, url=f"{self._base}/{quote(stored.key)}")
