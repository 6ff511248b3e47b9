"""A small real installer: copies a program and its data from a folder, and makes an index of them."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from anyio.to_thread import run_sync

from emp_core import Installer, InstallError, ServiceConfig, Step, StepContext
from emp_core.services.installer import shell_line

__all__ = ["FILES", "CopyFile", "MakeIndex", "NotesInstaller", "make_source", "notes_config"]

FILES = ("notes.py", "data/first.txt", "data/second.txt")
_INDEX = (
    "import sys, pathlib; out = pathlib.Path(sys.argv[1]); part = out.with_suffix('.part')"
    "; part.write_text(''.join(f'{p.name}\\n' for p in sorted(out.parent.glob('data/*.txt')))); part.replace(out)"
    "; print('indexed')"
)
_CHUNK_BYTES = 64


def make_source(folder: Path) -> Path:
    """What the installer copies from."""
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n" * 40)
    return folder


def notes_config(source: Path) -> ServiceConfig:
    return ServiceConfig("notes", {"PATH": "/usr/bin:/bin"}, {"installer_config": {"source": str(source)}})


class CopyFile(Step):
    """Copies a file: it has its name when it is whole."""

    def __init__(self, source: Path, target: Path) -> None:
        self.name = f"copy {target.name}"
        self.source = source
        self.target = target

    def commands(self) -> Sequence[str]:
        return (shell_line(["install", "-D", "-m", "644", str(self.source), str(self.target)]),)

    async def is_done(self) -> bool:
        return await run_sync(self.target.is_file) and await run_sync(_digest, self.target) == await run_sync(
            _digest, self.source
        )

    async def do(self, context: StepContext) -> None:
        part = self.target.with_name(f".{self.target.name}.part")
        data = await run_sync(self.read)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for start in range(0, len(data), _CHUNK_BYTES):
                file.write(data[start : start + _CHUNK_BYTES])
                file.flush()
                context.progress((start + _CHUNK_BYTES) / len(data), self.target.name)
        part.replace(self.target)
        context.fetched(self.target.name, f"sha256:{hashlib.sha256(data).hexdigest()}")

    def read(self) -> bytes:
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise InstallError(
                f"{self.source} cannot be read: {error.strerror}", hint="correct installer_config.source"
            ) from error


class MakeIndex(Step):
    """Runs a command that writes a file."""

    name = "make the index"

    def __init__(self, folder: Path) -> None:
        self.index = folder / "index.txt"

    @property
    def argv(self) -> Sequence[str]:
        return (sys.executable, "-c", _INDEX, str(self.index))

    def commands(self) -> Sequence[str]:
        return (shell_line(self.argv),)

    async def is_done(self) -> bool:
        return await run_sync(self.index.is_file)

    async def do(self, context: StepContext) -> None:
        await context.run(self.argv)
        context.log("the index is made")


class NotesInstaller(Installer):
    def steps(self) -> Sequence[Step]:
        source = Path(self.config.options["installer_config"]["source"])
        return (*(CopyFile(source / name, self.folder / name) for name in FILES), MakeIndex(self.folder))

    async def verify(self) -> None:
        missing = [name for name in (*FILES, "index.txt") if not await run_sync((self.folder / name).is_file)]
        if missing:
            raise InstallError(f"files are missing in {self.folder}: {', '.join(missing)}", hint="install it again")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
