"""Files from the web: several at once, resumed where they were cut off, checked, and there whole or not at all."""

import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import httpx

from emp_core.errors import InstallError
from emp_core.services.installer import Step, StepContext, shell_line
from emp_machine.steps.fetching import Fetching
from emp_machine.steps.manifest import FileEntry
from emp_machine.steps.records import read_record, sha256_of, write_record

__all__ = ["Downloads"]

_SPARE_BYTES = 256 * 2**20
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)


class Downloads(Step):
    """Files of a manifest, below ``folder``.

    A file that fails does not keep the others from coming; the step fails at its end and names all that did. One with a
    wrong checksum is kept beside its place, under its name and ``.wrong``, for whoever wants to know what came.

    Args:
        environ: where tokens are read from.
        at_once: how many are fetched side by side.
        sleep: waits before a further try.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        entries: Sequence[FileEntry],
        *,
        environ: Mapping[str, str],
        at_once: int = 4,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.name = name
        self.folder = folder
        self.entries = tuple(entries)
        self._environ = environ
        self._at_once = at_once
        self._sleep = sleep

    @property
    def _record(self) -> Path:
        return self.folder / ".emp" / "checksums.json"

    def commands(self) -> Sequence[str]:
        """What a person would type to the same end."""
        lines = [
            shell_line(
                ["curl", "--fail", "--location", "--create-dirs", "--output", str(self.folder / one.path), one.url]
            )
            for one in self.entries
        ]
        return lines or ["true  # no files are listed"]

    async def is_done(self) -> bool:
        """Every file is there and is what the manifest says."""
        return not await anyio.to_thread.run_sync(self._missing)

    async def do(self, context: StepContext) -> None:
        """Fetch what is not there.

        Raises:
            InstallError: files could not be fetched, or the disk has no room for them; ``details["files"]`` says of each why.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = await anyio.to_thread.run_sync(self._missing)
        failed: dict[str, str] = {}
        async with httpx.AsyncClient(follow_redirects=True, timeout=_TIMEOUT, trust_env=True) as client:
            fetching = Fetching(client, self.folder, self._environ, context, sleep=self._sleep)
            await self._make_room(fetching, missing, failed)
            limiter = anyio.CapacityLimiter(self._at_once)
            async with anyio.create_task_group() as group:
                for entry in missing:
                    if entry.path not in failed:
                        group.start_soon(self._fetch, fetching, entry, limiter, failed)
        record = await anyio.to_thread.run_sync(self._note, failed.keys())
        for entry in self.entries:
            if entry.path in record and entry.path not in failed:
                context.fetched(entry.url, f"sha256:{record[entry.path]['sha256']}")
        if failed:
            raise InstallError(
                f"{len(failed)} of {len(self.entries)} files could not be fetched: "
                + "; ".join(f"{path}: {why}" for path, why in sorted(failed.items())),
                hint="the others are there; what was begun goes on from where it was",
                details={"files": failed},
            )

    async def _fetch(
        self, fetching: Fetching, entry: FileEntry, limiter: anyio.CapacityLimiter, failed: dict[str, str]
    ) -> None:
        async with limiter:
            try:
                await fetching.fetch(entry)
            except InstallError as error:
                failed[entry.path] = error.message
            except OSError as error:
                failed[entry.path] = f"{error.filename or self.folder}: {error.strerror or error}"

    async def _make_room(self, fetching: Fetching, missing: Sequence[FileEntry], failed: dict[str, str]) -> None:
        """Ask before anything is written whether there is room for all of it."""
        wanted = 0
        for entry in missing:
            try:
                size = entry.size if entry.size is not None else await fetching.size(entry)
            except InstallError as error:
                failed[entry.path] = error.message
                continue
            part = fetching.part(entry)
            wanted += max(0, (size or 0) - (part.stat().st_size if part.is_file() else 0))
            fetching.expect(size or 0)
        free = shutil.disk_usage(self.folder).free
        if wanted and wanted + _SPARE_BYTES > free:
            raise InstallError(
                f"{self.folder} has {free // 2**20} MiB free, and {wanted // 2**20} MiB are to be fetched",
                hint="free some space, choose fewer models, or mount a larger disk there",
                details={"free": free, "wanted": wanted},
            )

    def _missing(self) -> list[FileEntry]:
        known = read_record(self._record)
        return [entry for entry in self.entries if not self._is_there(entry, known.get(entry.path))]

    def _is_there(self, entry: FileEntry, known: object) -> bool:
        file = self.folder / entry.path
        if not file.is_file() or (entry.size is not None and file.stat().st_size != entry.size):
            return False
        if entry.sha256 is not None:
            return self._checksum(file, known) == entry.sha256
        # Nothing tells whether it is right but where it came from, if it came from there by this step.
        return not isinstance(known, dict) or known.get("from", _source(entry)) == _source(entry)

    def _checksum(self, file: Path, known: object) -> str:
        """Its checksum; read from the file only if it changed since it was noted: models have many gigabytes."""
        if isinstance(known, dict) and {**known, **_facts(file)} == known:
            return str(known.get("sha256"))
        return sha256_of(file)

    def _note(self, failed: Collection[str]) -> dict[str, dict[str, object]]:
        known = read_record(self._record)
        record: dict[str, dict[str, object]] = {}
        for entry in self.entries:
            file = self.folder / entry.path
            if file.is_file():
                before = known.get(entry.path)
                record[entry.path] = {**_facts(file), "sha256": self._checksum(file, before)}
                if entry.path not in failed:
                    record[entry.path]["from"] = _source(entry)
                elif isinstance(before, dict) and "from" in before:
                    record[entry.path]["from"] = before["from"]  # it is still what came then
        write_record(self._record, {**known, **record})
        return record


def _facts(file: Path) -> dict[str, object]:
    """What tells that a file was not changed. Whole seconds: layers of images keep no fractions of them."""
    stat = file.stat()
    return {"size": stat.st_size, "mtime_s": stat.st_mtime_ns // 10**9}


def _source(entry: FileEntry) -> str:
    """Its address without what may be another one each time: signatures, tokens."""
    url = httpx.URL(entry.url)
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"
