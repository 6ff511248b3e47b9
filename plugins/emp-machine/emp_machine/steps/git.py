"""A repository at a branch, a tag or a commit."""

from collections.abc import Sequence
from pathlib import Path

import anyio

from emp_core.config import environment
from emp_core.errors import InstallError
from emp_core.log.redaction import hide_secrets
from emp_core.services.installer import Step, StepContext, shell_line
from emp_machine.steps.records import read_record, write_record

__all__ = ["GitCheckout"]

_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
_MISSING_REF = "couldn't find remote ref"


class GitCheckout(Step):
    """A working tree of ``url`` at ``ref``, without its history.

    A branch is fetched once: the commit that it had then stays, and is reported, until the step is done again
    (``emp machine reinstall``). Files that git does not know are left alone: models, outputs, custom nodes.

    Args:
        ref: a branch, a tag, or a whole commit.
    """

    def __init__(self, name: str, url: str, folder: Path, ref: str) -> None:
        self.name = name
        self.url = url
        self.folder = folder
        self.ref = ref

    @property
    def _record(self) -> Path:
        return self.folder / ".git" / "emp-checkout.json"

    def _argvs(self) -> Sequence[Sequence[str]]:
        git = ("git", "-C", str(self.folder))
        return (
            ("git", "init", "--quiet", "--initial-branch=none", str(self.folder)),
            (*git, "config", "remote.origin.url", self.url),
            (*git, "fetch", "--quiet", "--force", "--depth=1", "--end-of-options", "origin", self.ref),
            (*git, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"),
            (*git, "submodule", "--quiet", "sync", "--recursive"),
            (*git, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--force"),
        )

    def commands(self) -> Sequence[str]:
        """Git's own."""
        return [shell_line(argv, environ=_QUIET) for argv in self._argvs()]

    async def is_done(self) -> bool:
        """The commit that was fetched for this ``url`` and ``ref`` is checked out, and no file of it is missing."""
        record = read_record(self._record)
        if (record.get("url"), record.get("ref")) != (self.url, self.ref) or await self.commit() != record.get(
            "commit"
        ):
            return False
        return await _said(self.folder, "ls-files", "--deleted") == ""

    async def do(self, context: StepContext) -> None:
        """Fetch and check out.

        Raises:
            InstallError: the repository cannot be reached, or has no such ``ref``.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record.unlink(missing_ok=True)  # killed from here on, it is not done, whatever was done before
        for left in (self.folder / ".git").glob("**/*.lock"):
            left.unlink()  # by a git that was killed; nobody else works here
        try:
            for argv in self._argvs():
                await context.run(argv, environ=_QUIET)
        except InstallError as error:
            raise self._explained(error) from error
        commit = await self.commit()
        if commit is None:
            raise InstallError(f"{self.folder} has no commit after it was checked out", hint=f"remove {self.folder}")
        write_record(self._record, {"url": self.url, "ref": self.ref, "commit": commit})
        context.fetched(self.url, commit)

    async def commit(self) -> str | None:
        """The commit that is checked out."""
        return await _said(self.folder, "rev-parse", "--verify", "--quiet", "HEAD")

    def _explained(self, error: InstallError) -> InstallError:
        said = "\n".join(map(str, error.details.get("output", ())))
        if _MISSING_REF in said:
            return InstallError(
                f"{hide_secrets(self.url)} has no branch or tag {self.ref!r}",
                hint="name one that it has, or a whole commit of 40 digits; `git ls-remote` lists them",
                details=error.details,
            )
        return error


async def _said(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it fails, as where there is no repository or no git."""
    if not (folder / ".git").is_dir():
        return None
    environ = {**environment(), **_QUIET}
    try:
        done = await anyio.run_process(["git", "-C", str(folder), *arguments], check=False, env=environ)
    except OSError:
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
