"""Outputs of a job, copied into a folder of the user's."""

import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.to_thread import run_sync

from emp_core.cli.output import clean, path_of
from emp_core.cli.stores import open_stores
from emp_core.config import Settings
from emp_core.errors import ConfigError, StorageError, StorageUnavailable
from emp_core.inputs.artifacts import find_artifact
from emp_core.inputs.files import safe_name
from emp_core.jobs.model import Destination, Job
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.stores import Stores

__all__ = ["check_folder", "save_outputs", "save_stream"]

_CHUNK_BYTES = 2**20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


def check_folder(folder: Path) -> None:
    """Find out, before a job runs for hours, whether its outputs can be put there.

    Raises:
        ConfigError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(8)}.part"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"outputs cannot be put into {folder}: {error.strerror or error}") from error


async def save_outputs(job: Job, folder: Path, settings: Settings, ctx: Destination | None = None) -> list[Path]:
    """Copy a job's outputs into a folder, each under its own name; gives where they lie.

    A file that is there already with the same content is left as it is; one with another content keeps its name, and the
    output gets a number.

    Args:
        ctx: where the outputs went, as whoever submitted the job said: if that was a store of the job's own, it is read
            with the key that it came with.

    Raises:
        StorageError: an output cannot be had from here, or is not what the result says.
    """
    artifacts = (job.result or {}).get("artifacts", ())
    saved: list[Path] = []
    async with open_stores(settings) as stores, _searched(stores, ctx) as searched:
        for artifact in artifacts:
            saved.append(await _save(artifact, folder, searched))  # noqa: PERF401 - one after the other
    return saved


@asynccontextmanager
async def _searched(stores: Stores, ctx: Destination | None) -> AsyncIterator[Callable[[], Iterator[ArtifactStore]]]:
    """Gives the stores in which outputs may be, those that are not needed unopened."""
    if not Stores.is_brought(ctx):
        yield lambda: map(stores.get, stores.names)
        return
    async with stores.of(ctx) as own:
        yield lambda: chain((own,), map(stores.get, stores.names))


async def _save(artifact: Mapping[str, Any], folder: Path, searched: Callable[[], Iterator[ArtifactStore]]) -> Path:
    name = safe_name(str(artifact.get("name", ""))) or "output"
    return await save_stream(
        _open(str(artifact.get("url", "")), searched), folder, name, sha256=str(artifact.get("sha256") or "")
    )


async def save_stream(chunks: AsyncIterator[bytes], folder: Path, name: str, *, sha256: str) -> Path:
    """Copy a file into a folder; gives where it lies.

    A file that is there already with the same content is left as it is; one with another content keeps its name, and the
    new one gets a number.

    Args:
        sha256: the checksum that it has to have; empty: not known.

    Raises:
        StorageError: it cannot be put there, or is not what it should be.
    """
    if sha256 and (there := await run_sync(_same_file, folder, name, sha256)) is not None:
        return there
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        found = hashlib.sha256()
        with part.open("xb") as file:
            async for chunk in chunks:
                await run_sync(file.write, chunk)
                found.update(chunk)
        if sha256 and found.hexdigest() != sha256:
            raise StorageError(f"the output {clean(name)} is not what the result says: its checksum is another")
        return await run_sync(_named, part, folder, name)
    except OSError as error:
        raise StorageError(
            f"the output {clean(name)} cannot be put into {folder}: {error.strerror or error}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _same_file(folder: Path, name: str, digest: str) -> Path | None:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return path if hashlib.file_digest(file, "sha256").hexdigest() == digest else None


def _named(part: Path, folder: Path, name: str) -> Path:
    """Give a file its name, or the first one with a number that is free. Nothing that is there is replaced."""
    stem, dot, extension = name.rpartition(".") if "." in name else (name, "", "")
    number = 0
    while True:
        path = folder / (f"{stem} ({number}){dot}{extension}" if number else name)
        try:
            path.hardlink_to(part)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(path):
                number += 1
                continue
            part.rename(path)
        return path


async def _open(url: str, searched: Callable[[], Iterator[ArtifactStore]]) -> AsyncIterator[bytes]:
    """The bytes of an output: a file of this machine, a file of a store that is known here, or an address in the web."""
    local = anyio.Path(path_of(url))
    if url.startswith("file:///") and await local.is_file():
        async with await local.open("rb") as file:
            while chunk := await file.read(_CHUNK_BYTES):
                yield chunk
        return
    for store in searched():
        if (found := await find_artifact(store, url)) is not None:
            async for chunk in store.open(found.key):
                yield chunk
            return
    if not url.startswith(("http://", "https://")):
        raise StorageError(
            f"the output {clean(url)[:300]} cannot be had from here",
            hint="set EMP_STORE to the artifact store of the workers",
        )
    async for chunk in _download(url):
        yield chunk


async def _download(url: str) -> AsyncIterator[bytes]:
    shown = clean(url.partition("?")[0])[:300]
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=True) as client,
            client.stream("GET", url) as response,
        ):
            if not response.is_success:
                raise StorageUnavailable(f"the server of {shown} answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                yield chunk
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StorageUnavailable(f"{shown} could not be fetched: {str(error) or type(error).__name__}") from error
