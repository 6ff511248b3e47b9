"""The contract of an artifact store."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol, runtime_checkable

from attrs import frozen

__all__ = ["ArtifactStore", "StoredObject"]


@frozen
class StoredObject:
    """What the store knows of one stored file.

    Attributes:
        key: its name within the store: folders separated by ``/``.
        url: its address, for people and other programs.
    """

    key: str
    url: str
    media_type: str
    size_bytes: int
    sha256: str


@runtime_checkable
class ArtifactStore(Protocol):
    """A place for files. Stores are opened as async context managers by whoever made them.

    Keys are relative paths of printable names. A key that is absolute, has ``..``, a drive, a backslash or a NUL is
    refused with UnsafeName before anything is touched.
    """

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, media_type: str, overwrite: bool = False
    ) -> StoredObject:
        """Store a file. It is there whole or not at all.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactExists: the key holds other bytes, and ``overwrite`` is false (the same bytes are no error).
            StorageUnavailable: the store cannot be written now.
        """
        ...

    def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            ArtifactNotFound: nothing is stored under this key.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    async def check(self) -> None:
        """Find out whether the store can be written.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
