"""A git repository of this machine, for tests."""

import subprocess
from pathlib import Path

from attrs import define

__all__ = ["Repository", "new_repository"]


@define
class Repository:
    """A repository of this machine.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @property
    def url(self) -> str:
        """What git is told."""
        return self.folder.as_uri()

    def commit(self, **files: str) -> str:
        """Change files (``a__b`` is ``a/b``, ``_py`` at the end is ``.py``); gives the commit."""
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Run git here, as somebody; gives what it says."""
        who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main"]
        argv = ["git", *who, *arguments]
        done = subprocess.run(argv, cwd=self.folder, check=True, capture_output=True, text=True)  # noqa: S603 - a test's
        return done.stdout.strip()


def new_repository(folder: Path) -> Repository:
    """An empty repository with the branch main."""
    folder.mkdir(parents=True)
    repository = Repository(folder)
    repository.git("init", "--quiet")
    return repository
