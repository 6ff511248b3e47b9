"""Outputs that this machine can read without the network: files of a server that runs here, or on a shared file system.

Nothing is believed of a path alone: another program's folder may look the same, and a container has a root of its own. The
server tells, by the answer to a ``HEAD`` of ``/view``, of which moment and size its file is; only a file that is just so is read.
"""

import ipaddress
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio.to_thread
from attrs import field, frozen

from emp_core.connectors.http import HTTPConnector
from emp_core.errors import EmpError, JobFailed

__all__ = ["LocalFile", "SharedFolders", "folders_told", "is_this_machine"]

_CHUNK_BYTES = 2**20
_HEAD_S = 15.0
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine: a loopback address, one of its own, or its name. Asks no name server."""
    name = host.strip("[]").lower()
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # nothing is sent: only an address of our own can be bound
        except OSError:
            return False
    return not address.is_unspecified


def folders_told(argv: Any) -> dict[str, Path]:
    """Where a server keeps its files, by kind, as far as the command line in ``/system_stats`` tells it.

    Source: ComfyUI's ``--base-directory``, ``--input-directory``, ``--output-directory`` and ``--temp-directory`` (below which
    it makes ``temp``); without them they are beside its ``main.py``. Relative paths say nothing here.
    """
    words = [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []
    base = _option(words, "--base-directory") or (Path(words[0]).parent if words else None)
    output = _option(words, "--output-directory") or (base and base / "output")
    temp = _option(words, "--temp-directory") or base
    uploads = _option(words, "--input-directory") or (base and base / "input")
    found = {"output": output, "temp": temp and temp / "temp", "input": uploads}
    return {kind: path for kind, path in found.items() if path is not None and path.is_absolute()}


def _option(words: Sequence[str], name: str) -> Path | None:
    for place, word in enumerate(words):
        if word == name and place + 1 < len(words):
            return Path(words[place + 1])
        if word.startswith(f"{name}="):
            return Path(word.partition("=")[2])
    return None


@frozen
class LocalFile:
    """An open file that is the one which the server would give. To be used in a ``with`` block."""

    path: Path
    descriptor: int
    facts: os.stat_result
    content_type: str | None

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self.facts.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes.

        Raises:
            JobFailed: it was cut while it was read.
        """
        left = self.size_bytes
        while left:
            chunk = await anyio.to_thread.run_sync(os.read, self.descriptor, min(left, _CHUNK_BYTES))
            if not chunk:
                raise JobFailed(
                    "an output file was cut while it was read", details={"reason": "output_missing", "left_bytes": left}
                )
            left -= len(chunk)
            yield chunk

    async def remove(self) -> None:
        """Remove the file, unless another one stands in its place meanwhile.

        Raises:
            OSError: it cannot be removed.
        """
        await anyio.to_thread.run_sync(self._remove)

    def _remove(self) -> None:
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return
        if _identity(there) == _identity(self.facts):
            self.path.unlink(missing_ok=True)


@frozen
class SharedFolders:
    """A server's folders as this machine sees them.

    Attributes:
        folders: by kind: ``output``, ``temp``, ``input``.
    """

    folders: Mapping[str, Path] = field(factory=dict)

    async def open(self, http: HTTPConnector, params: Mapping[str, str]) -> LocalFile | None:
        """Open the file that ``/view`` gives for ``params``; None: it is not here, or is not surely the same."""
        folder = self.folders.get(params["type"])
        if folder is None:
            return None
        opened = await anyio.to_thread.run_sync(_opened, folder, params["subfolder"], params["filename"])
        if opened is None:
            return None
        path, descriptor = opened
        found: LocalFile | None = None
        try:
            found = await _if_same(http, params, path, descriptor)
        finally:
            if found is None:
                os.close(descriptor)
        return found


def _opened(folder: Path, subfolder: str, filename: str) -> tuple[Path, int] | None:
    """The path and a descriptor of a regular file below the folder; links that lead out of it are not followed."""
    try:
        base = folder.resolve(strict=True)
        path = (base / subfolder.replace("\\", "/") / filename).resolve(strict=True)
        if not path.is_relative_to(base) or path.name != filename:
            return None
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError, RuntimeError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return path, descriptor
    os.close(descriptor)
    return None


async def _if_same(http: HTTPConnector, params: Mapping[str, str], path: Path, descriptor: int) -> LocalFile | None:
    try:
        async with http.stream("HEAD", "/view", params=params, silence_s=_HEAD_S) as response:
            headers = response.headers
    except EmpError:
        return None
    facts = os.fstat(descriptor)
    if not _same(headers, facts):
        return None
    return LocalFile(path, descriptor, facts, headers.get("content-type"))


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)


def _same(headers: Mapping[str, str], facts: os.stat_result) -> bool:
    """Whether the served file is this one: by aiohttp's entity tag, which holds the time and the size, or by both alone."""
    tag = headers.get("etag", "").strip('W/"')
    if tag:
        return tag == f"{facts.st_mtime_ns:x}-{facts.st_size:x}"
    try:
        modified = parsedate_to_datetime(headers.get("last-modified", "")).timestamp()
        size = int(headers.get("content-length", ""))
    except (TypeError, ValueError):
        return False
    return size == facts.st_size and modified == int(facts.st_mtime)
