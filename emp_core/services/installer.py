"""The contract of an installer: what puts a service on a machine.

An installer says what it would do, as steps; `emp_core.services.installing` does them. So the same steps are run, printed
by a dry run, told as progress, and taken up again after a kill:

    class NotesInstaller(Installer):
        def steps(self):
            return (CopyFile("copy the program", self.config.options["source"], self.folder / "notes.py"),)

        async def verify(self):
            if not (self.folder / "notes.py").is_file():
                raise InstallError(f"{self.folder / 'notes.py'} is missing", hint="install notes again")
"""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from attrs import frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.log.redaction import hide_secrets
from emp_core.services.launch import Launch, ServiceInstance

__all__ = ["InstallEvent", "InstallEventKind", "Installer", "Step", "StepContext", "shell_line"]


class InstallEventKind(StrEnum):
    """What happened in an installation."""

    SKIPPED = "skipped"
    """A step has nothing to do: it was done before."""
    BEGUN = "begun"
    PROGRESS = "progress"
    COMMAND = "command"
    """A command is run; the text is the line that a person would type."""
    LOG = "log"
    """A line of output."""
    FETCHED = "fetched"
    """Something came from outside; the text is what, and the pin is which."""
    DONE = "done"
    VERIFIED = "verified"
    """All steps are done, and the installation works."""


@frozen
class InstallEvent:
    """Something that happened in an installation, for people who wait, for logs and for lock files.

    Attributes:
        step: the step's name; empty for what is about the whole.
        fraction: how far the step is, 0 to 1, where it says so.
        pin: what was fetched, so exactly that the same can be fetched again: a commit, a version, a checksum.
    """

    kind: InstallEventKind
    step: str = ""
    text: str = ""
    fraction: float | None = None
    pin: str = ""


class StepContext(Protocol):
    """All that a step may do with the rest of the system. Each call is a place where an installation may be killed."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the step is, 0 to 1."""

    def log(self, line: str) -> None:
        """Put a line into the installation's log."""

    def fetched(self, what: str, pin: str) -> None:
        """Report what came from outside, for the lock file: what, and a commit, version or checksum of it."""

    async def run(
        self, argv: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """Run a command to its end. Its output goes to the log; it and its children end when the step is cancelled.

        Args:
            argv: the program and its arguments; no shell reads them.
            environ: variables besides those of the installer's ``config``.

        Raises:
            InstallError: it cannot be run, or fails; tells the end of its output.
        """


class Step(ABC):
    """One step of an installation.

    It may be killed at any moment, and done again from the beginning: whatever is half done then must not be in the way.
    Files appear under their names when they are whole. Where it is done, `is_done` says so; nobody keeps a list.

    Attributes:
        name: what people call it; unique within the installer, and the same every time.
    """

    name: str

    @abstractmethod
    def commands(self) -> Sequence[str]:
        """What `do` does, for a dry run: lines that a person could type, one at least; see `shell_line`. Changes nothing."""

    @abstractmethod
    async def is_done(self) -> bool:
        """Whether there is nothing to do. Looks, and changes nothing."""

    @abstractmethod
    async def do(self, context: StepContext) -> None:
        """Do it.

        Raises:
            InstallError: it cannot be done; says why and what to do.
        """


class Installer(ABC):
    """Puts a service on this machine. Named in the service mapping, brought by the hook ``emp_register_installers``.

    Args:
        config: the service, its entry of the mapping (``config.options["installer_config"]``) and the environment.
        folder: the service's own. It need not be there yet; nothing outside of it is changed.
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """What is to be done, in this order. Cheap: it looks at nothing, so that it can be shown before anything is there.

        Raises:
            ConfigError: the service's entry cannot be used; lists every mistake.
        """

    @abstractmethod
    async def verify(self) -> None:
        """Find out whether the installation works; changes nothing.

        Raises:
            InstallError: it does not; says what is wrong and what to do.
        """

    def launch(self, instance: ServiceInstance) -> Launch | None:  # noqa: ARG002 - for subclasses
        """What to run for an instance of the service. Pure: it looks at nothing, so that it can be planned and shown
        before anything is there.

        Returns:
            None: there is nothing to run; the service is there when it is installed.

        Raises:
            ConfigError: the service's entry cannot be used; lists every mistake.
        """
        return None


def shell_line(argv: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """A command as a person would type it, with what looks like a secret hidden."""
    line = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in (environ or {}).items()), shlex.join(argv)])
    return hide_secrets(line if cwd is None else f"cd {shlex.quote(str(cwd))} && {line}")
