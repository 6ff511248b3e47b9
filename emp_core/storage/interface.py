"""The contract of an artifact store."""

from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime
from typing import Protocol, runtime_checkable

from attrs import frozen

__all__ = ["ArtifactStore", "StoredObject"]


@frozen
class StoredObject:
    """What the store knows of one stored file.

    Attributes:
        key: its name within the store: folders separated by ``/``.
        url: its address, for people and other programs. No secret is in it: one who may not read the store cannot read
            the file by it.
        media_type: its MIME type.
        size_bytes: its length.
        sha256: its checksum, in hexadecimal; empty for a file that `ArtifactStore.put` did not store.
        stored_at: when it was stored, an aware datetime by the store's own clock.
        retention: the retention class that it was stored with; None: it was given none.
    """

    key: str
    url: str
    media_type: str
    size_bytes: int
    sha256: str
    stored_at: datetime | None = None
    retention: str | None = None


@runtime_checkable
class ArtifactStore(Protocol):
    """A place for files. Making one does no I/O; whoever made it closes it.

    Keys are relative paths of printable names. A key that is absolute, has ``..``, a drive, a backslash or a NUL is
    refused with UnsafeName before anything is touched; `emp_core.storage.names.safe_key` does that.

    Every method raises StorageUnavailable when the store cannot be reached, after trying again for a while what may be
    tried again; StorageRefused when the store will not have us; StorageError for whatever else goes wrong. No error,
    log or repr of a store holds its credentials.
    """

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: str,
        overwrite: bool = False,
        retention: str | None = None,
    ) -> StoredObject:
        """Store a file. It is there whole or not at all: also when this is cancelled, or the stream raises.

        When this returns the store has confirmed that it holds these bytes: whoever gave them may forget them. A stream
        of any length takes a bounded amount of memory.

        Args:
            retention: kept with the file, for `list_objects` to tell: letters, digits, ``-``, ``_``, at most 32.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactExists: the key holds other bytes, and ``overwrite`` is false (the same bytes are no error).
            StorageUnavailable: the store cannot be written now.
        """
        ...

    def open(self, key: str) -> AsyncIterator[bytes]:
        """The file's bytes, in chunks.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        ...

    async def stat(self, key: str) -> StoredObject:
        """What is known of a file, without its bytes.

        Raises:
            UnsafeName: the key tries to leave the store.
            ArtifactNotFound: nothing is stored under this key.
        """
        ...

    def list_objects(self, prefix: str = "", *, stored_before: datetime | None = None) -> AsyncIterator[StoredObject]:
        """The files that `put` stored here, one by one, in no promised order; never what anybody else put here.

        Whoever reads may delete what was given. Files that come or go meanwhile may be given or not.

        Args:
            prefix: only keys that begin with this text.
            stored_before: only files stored before this moment, an aware datetime; a store that has to ask for each file
                asks for those alone.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    async def sign(self, key: str, *, expires_in_s: float) -> str:
        """An address by which anybody can read the file, without credentials, until it expires.

        Whether the file is there is not looked at.

        Raises:
            UnsafeName: the key tries to leave the store.
            CannotSign: this store has no such addresses, or what it was opened with does not allow them.
        """
        ...

    async def check(self) -> None:
        """Find out whether the store can be written, leaving nothing behind.

        Raises:
            StorageUnavailable: it cannot; says why and what to do.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Doing it twice is no error."""
        ...
