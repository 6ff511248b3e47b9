"""An archive's contents in a folder."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from emp_core.errors import InstallError
from emp_core.services.installer import Step, StepContext, shell_line
from emp_machine.steps.records import read_record, sha256_of, write_record

__all__ = ["Unpack"]

_RECORD = "emp-unpacked.json"


class Unpack(Step):
    """The contents of an archive, in a folder that holds nothing else: ``.tar``, with any compression that is known, ``.zip``.

    ``.tar.zst`` needs the program ``tar`` with ``zstd``; all else is read here. Members that would leave the folder are refused.
    """

    def __init__(self, name: str, archive: Path, folder: Path) -> None:
        self.name = name
        self.archive = archive
        self.folder = folder

    @property
    def _by_program(self) -> bool:
        return self.archive.name.endswith((".tar.zst", ".tzst"))

    def _argv(self, into: Path) -> Sequence[str]:
        if self.archive.suffix == ".zip":
            return ("unzip", "-q", str(self.archive), "-d", str(into))
        how = ("--zstd",) if self._by_program else ()
        return ("tar", "--extract", "--no-same-owner", *how, "--file", str(self.archive), "--directory", str(into))

    @property
    def _fresh(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.part")

    def commands(self) -> Sequence[str]:
        """What a person would type to the same end."""
        return (shell_line(self._argv(self._fresh)), shell_line(["mv", str(self._fresh), str(self.folder)]))

    async def is_done(self) -> bool:
        """This very archive was unpacked whole, and the files at its top are there."""
        record = read_record(self.folder / _RECORD)
        if not record or any(not (self.folder / name).exists() for name in record.get("holds", ())):
            return False
        if not self.archive.is_file():
            return True  # it was removed to save space
        return record.get("sha256") == await anyio.to_thread.run_sync(sha256_of, self.archive)

    async def do(self, context: StepContext) -> None:
        """Unpack it beside its place, and move it there.

        Raises:
            InstallError: it is damaged, or holds what does not belong into a folder.
        """
        fresh = self._fresh
        await anyio.to_thread.run_sync(_emptied, fresh)
        if self._by_program:
            await context.run(self._argv(fresh))
        else:
            await anyio.to_thread.run_sync(self._extract, fresh)
        sha256 = await anyio.to_thread.run_sync(sha256_of, self.archive)
        write_record(fresh / _RECORD, {"sha256": sha256, "holds": sorted(one.name for one in fresh.iterdir())})
        if self.folder.exists():
            (self.folder / _RECORD).unlink(missing_ok=True)  # what is half removed is not what was unpacked
            await anyio.to_thread.run_sync(shutil.rmtree, self.folder)
        fresh.replace(self.folder)

    def _extract(self, into: Path) -> None:
        try:
            if self.archive.suffix == ".zip":
                with zipfile.ZipFile(self.archive) as opened:
                    opened.extractall(into)  # noqa: S202 - zipfile drops what would lead out of the folder
            else:
                with tarfile.open(self.archive) as archive:
                    _extract_tar(archive, into)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise InstallError(
                f"{self.archive} cannot be unpacked: {error}",
                hint=f"remove {self.archive}, so that it is fetched again",
            ) from error


def _extract_tar(archive: tarfile.TarFile, into: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, filter="data")
        return
    # Python before 3.11.4 knows no filters: what they refuse is refused here.
    members = archive.getmembers()
    for member in members:
        target = None
        if member.islnk():
            target = into / member.linkname
        elif member.issym():
            target = into / Path(member.name).parent / member.linkname
        for path in (into / member.name, *(() if target is None else (target,))):
            if not Path(os.path.normpath(path)).is_relative_to(into):
                raise InstallError(f"the archive holds {member.name!r}, which leads out of its folder")
        if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
            raise InstallError(f"the archive holds {member.name!r}, which is neither a file, a folder nor a link")
        member.mode &= 0o755
    archive.extractall(into, members, numeric_owner=True)  # noqa: S202 - each member was looked at


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
