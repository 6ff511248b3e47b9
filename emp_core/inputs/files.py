"""A file that a job refers to: on its way to this machine (`Source`), and as it lies there (`Input`)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from anyio.to_thread import run_sync
from attrs import field, frozen

__all__ = ["Input", "Source", "safe_name"]

_CHUNK_BYTES = 256 * 1024
_NAME_MAX = 120


@frozen
class Source:
    """Bytes on their way in, and what was said of them.

    Attributes:
        name: what the file is called there; empty: nothing was said.
        media_type: what it is said to be; None: nothing was said.
        size_bytes: how long it is said to be; None: nothing was said.
    """

    chunks: AsyncIterator[bytes] = field(repr=False)
    name: str = ""
    media_type: str | None = None
    size_bytes: int | None = None


@frozen
class Input:
    """A file that a job refers to, fetched and looked at. It is gone when the attempt ends.

    Attributes:
        name: a file name without folders, from outside: safe to join to a folder, not to be trusted to be unique.
        media_type: what it is: by its first bytes where they tell, else by what was said of it, else by its name.
        size_bytes: its length, 1 or more.
        sha256: its checksum, in hexadecimal.
        path: where it lies, under a name of its own; private to this attempt.
    """

    name: str
    media_type: str
    size_bytes: int
    sha256: str
    path: Path = field(repr=False)

    async def read(self) -> bytes:
        """The whole file. For small ones: nothing but the limit on inputs bounds it."""
        return await run_sync(self.path.read_bytes)

    def open(self) -> BinaryIO:
        """The file, opened for reading: for libraries that want one. To be closed by whoever opened it."""
        return self.path.open("rb")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes, piece by piece."""
        file = await run_sync(self.open)
        try:
            while chunk := await run_sync(file.read, _CHUNK_BYTES):
                yield chunk
        finally:
            file.close()


def safe_name(told: str) -> str:
    """A file name from outside as one that can be joined to a folder; empty when nothing is left of it."""
    name = told.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char if char.isprintable() and char not in '<>:"|?*' else "_" for char in name).strip(" .")
    stem, dot, extension = kept.rpartition(".")
    while len(kept.encode("utf-8", "replace")) > _NAME_MAX:
        stem, extension = (stem[:-1], extension) if stem else ("", extension[:-1])
        kept = f"{stem}{dot}{extension}"
    return kept
