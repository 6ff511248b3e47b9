"""A `StepContext` that notes what it is told and runs commands in earnest."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field

from emp_core.config import environment
from emp_core.errors import InstallError

__all__ = ["Telling"]


@define
class Telling:
    """Notes progress, lines and what was fetched."""

    fractions: list[float] = field(factory=list)
    lines: list[str] = field(factory=list)
    pins: dict[str, str] = field(factory=dict)

    def progress(self, fraction: float, message: str = "") -> None:
        self.fractions.append(fraction)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def fetched(self, what: str, pin: str) -> None:
        self.pins[what] = pin

    async def run(
        self, argv: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        done = subprocess.run(  # noqa: ASYNC221 - a test's command
            argv, cwd=cwd, env={**environment(), **(environ or {})}, capture_output=True, text=True
        )
        said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        self.lines += said
        if done.returncode:
            raise InstallError(f"{argv[0]} ended with {done.returncode}", details={"output": said})
