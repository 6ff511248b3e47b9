"""Virtual environments, and what pip puts into them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

import anyio
import anyio.to_thread

from emp_core.config import environment
from emp_core.errors import InstallError
from emp_core.services.installer import Step, StepContext, shell_line
from emp_machine.steps.records import read_record, write_record

__all__ = ["PipInstall", "VirtualEnv"]


class VirtualEnv(Step):
    """A virtual environment with pip.

    Args:
        python: the Python that it is made from, a path or a name on PATH.
    """

    def __init__(self, name: str, folder: Path, python: str) -> None:
        self.name = name
        self.folder = folder
        self.from_python = python

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def _record(self) -> Path:
        return self.folder / "emp-venv.json"

    def _argv(self) -> Sequence[str]:
        return (self.from_python, "-m", "venv", "--clear", str(self.folder))

    def commands(self) -> Sequence[str]:
        """Python's own."""
        return (shell_line(self._argv()),)

    async def is_done(self) -> bool:
        """It was made whole, and its Python still finds what is in it: after an upgrade of the system's it does not."""
        return read_record(self._record).get("python") == self.from_python and await _finds_pip(self.python)

    async def do(self, context: StepContext) -> None:
        """Make it afresh.

        Raises:
            InstallError: this Python makes none.
        """
        self._record.unlink(missing_ok=True)  # it may be killed when half is cleared
        try:
            await context.run(self._argv())
        except InstallError as error:
            raise InstallError(
                error.message, hint="on Debian and Ubuntu: apt install python3-venv", details=error.details
            ) from error
        write_record(self._record, {"python": self.from_python})


class PipInstall(Step):
    """What pip installs into a virtual environment.

    Args:
        venv: the step that makes the environment.
        requirements: a requirements file. One that is not there counts as empty: not every repository has one.
        packages: more to install, as pip takes it.
        options: further options of ``pip install``: an index, constraints.
        environ: variables of the command; an index with a password belongs here, not into ``options``.
    """

    def __init__(
        self,
        name: str,
        venv: VirtualEnv,
        *,
        requirements: Path | None = None,
        packages: Sequence[str] = (),
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._venv = venv
        self._requirements = requirements
        self._packages = tuple(packages)
        self._options = tuple(options)
        self._environ = dict(environ or {})

    @property
    def _record(self) -> Path:
        # In the environment: whoever removes that removes what is known of it.
        return self._venv.folder / "emp-installed" / f"{hashlib.sha256(self.name.encode()).hexdigest()[:16]}.json"

    def _argv(self) -> Sequence[str]:
        asked = (*(("-r", str(self._requirements)) if self._requirements else ()), *self._packages)
        return (str(self._venv.python), "-m", "pip", "install", "--disable-pip-version-check", *self._options, *asked)

    def commands(self) -> Sequence[str]:
        """Pip's own."""
        return (shell_line(self._argv(), environ=self._environ),)

    async def is_done(self) -> bool:
        """It was installed from requirements that read as they read now."""
        return self._venv.python.exists() and read_record(self._record).get("asked") == self._asked()

    async def do(self, context: StepContext) -> None:
        """Install, and report the version of every package that is there now.

        Raises:
            InstallError: pip could not.
        """
        self._record.unlink(missing_ok=True)  # pip may be killed between removing one version and installing the next
        if self._packages or (self._requirements is not None and self._requirements.is_file()):
            await context.run(self._argv(), environ=self._environ)
            for name, version in await anyio.to_thread.run_sync(self._installed):
                context.fetched(f"pip {name}", version)
        write_record(self._record, {"asked": self._asked()})

    def _asked(self) -> str:
        file = self._requirements
        text = file.read_text(encoding="utf-8", errors="replace") if file is not None and file.is_file() else ""
        asked = json.dumps([text, self._packages, self._options])
        return hashlib.sha256(asked.encode()).hexdigest()

    def _installed(self) -> list[tuple[str, str]]:
        """Every package of the environment, with its version."""
        folders = [str(folder) for folder in self._venv.folder.glob("lib/python*/site-packages")]
        return sorted({(found.name, found.version) for found in distributions(path=folders)})


async def _finds_pip(python: Path) -> bool:
    try:
        done = await anyio.run_process([str(python), "-I", "-B", "-c", "import pip"], check=False, env=environment())
    except OSError:
        return False
    return done.returncode == 0
