"""Wall clocks of other processes that a test may set."""

import os
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

_SOURCE = Path(__file__).with_name("clock.c")


@frozen
class Clock:
    """The wall clock of every process that has its environment."""

    environ: dict[str, str]
    file: Path

    def set_wrong_by(self, seconds: int) -> None:
        """Put it wrong from now on."""
        with self.file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


def compiler() -> str | None:
    """A C compiler; None on a machine without."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def make_clock(folder: Path, name: str, wrong_by_s: int = 0) -> Clock:
    """A clock that is wrong by so many seconds."""
    library = folder / "clock.so"
    if not library.exists():
        found = compiler()
        assert found is not None
        subprocess.run([found, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    file = folder / f"{name}.clock"
    file.write_bytes(bytes(8))
    made = Clock({**os.environ, "LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}, file)
    made.set_wrong_by(wrong_by_s)
    return made
