"""A command that a person wrote into the service mapping."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from emp_core.services.installer import Step, StepContext, shell_line
from emp_machine.steps.records import read_record, write_record

__all__ = ["Command"]


class Command(Step):
    """Runs a command once. It may be killed in the middle and run again from its beginning.

    Args:
        folder: the service's own; the command's working folder.
        of: what it is run for besides, such as an address and a branch: for others it is run again.
        remembered_in: the folder where it is remembered that it was run, and that takes the memory with it when it goes: the
            virtual environment that the command fills.
        makes: files or folders, relative to ``folder``, without which it counts as not run.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        makes: Sequence[str] = (),
        cwd: Path | None = None,
        of: Sequence[str] = (),
        remembered_in: Path | None = None,
    ) -> None:
        self.name = name
        self._folder = folder
        self._argv = tuple(argv)
        self._environ = dict(environ or {})
        self._makes = tuple(makes)
        self._cwd = cwd or folder
        self._of = tuple(of)
        self._remembered_in = remembered_in or folder

    @property
    def _record(self) -> Path:
        return self._remembered_in / ".emp" / f"{hashlib.sha256(self.name.encode()).hexdigest()[:16]}.json"

    def commands(self) -> Sequence[str]:
        """The command."""
        return (shell_line(self._argv, cwd=self._cwd, environ=self._environ),)

    async def is_done(self) -> bool:
        """This very command was run to its end, and what it makes is there."""
        done = read_record(self._record).get("ran") == self._asked()
        return done and all((self._folder / made).exists() for made in self._makes)

    async def do(self, context: StepContext) -> None:
        """Run it.

        Raises:
            InstallError: it cannot be run, or fails.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._record.unlink(missing_ok=True)
        await context.run(self._argv, cwd=self._cwd, environ=self._environ)
        write_record(self._record, {"ran": self._asked()})

    def _asked(self) -> str:
        return hashlib.sha256(json.dumps([self._argv, self._environ, self._of]).encode()).hexdigest()
