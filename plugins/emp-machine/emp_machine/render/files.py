"""Files that were rendered: what they are, and writing them."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen

from emp_machine.errors import MachineError

__all__ = ["RenderedFile", "write_files"]


@frozen
class RenderedFile:
    """A file, before it is written.

    Attributes:
        path: below the folder that it is written to.
        private: nobody but its user may read it: it holds secrets, or may.
        program: it can be run.
        kept: what lies there already stays: it is the beginning of a file that people write on.
    """

    path: Path
    text: str = field(repr=False)
    private: bool = False
    program: bool = False
    kept: bool = False

    @property
    def mode(self) -> int:
        """Who may read it."""
        return 0o600 if self.private else 0o755 if self.program else 0o644


def write_files(files: Iterable[RenderedFile], folder: Path) -> None:
    """Write files, each at once: whoever reads one finds it as it was, or as it is now. What is so already stays untouched.

    Raises:
        MachineError: one cannot be written.
    """
    for one in files:
        path = folder / one.path
        try:
            _write(path, one)
        except OSError as error:
            raise MachineError(
                f"{path} cannot be written: {error.strerror or error}", hint="name another folder with --output"
            ) from error


def _write(path: Path, one: RenderedFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = one.text.encode()
    if (one.kept and path.exists()) or _is_so(path, content, one.mode):
        return
    handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(fresh).chmod(one.mode)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _is_so(path: Path, content: bytes, mode: int) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return path.stat().st_mode & 0o777 == mode and path.read_bytes() == content
