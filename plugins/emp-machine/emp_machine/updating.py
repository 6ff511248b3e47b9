"""New code for a machine's workers: pip puts it into the environment that they run in."""

import importlib
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import distributions, entry_points
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from attrs import frozen

from emp_core.config import environment
from emp_core.errors import ConfigError, InstallError
from emp_core.log.redaction import hide_secrets
from emp_machine.installing.run import alone

__all__ = ["Change", "install_packages", "our_packages"]

_SAID_MAX = 5


@frozen
class Change:
    """A package that is another one now.

    Attributes:
        before: its version; None: it was not there.
        after: its version; None: it is not there any more.
    """

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'none'} → {self.after or 'none'}"


def our_packages() -> tuple[str, ...]:
    """The core and the installed plugins: what a worker is made of."""
    plugins = {point.dist.name for point in entry_points(group="emp_core.plugins") if point.dist is not None}
    return ("emp-core", *sorted({_canonical(name) for name in plugins} - {"emp-core"}))


async def install_packages(root: Path, requirements: Sequence[str]) -> tuple[Change, ...]:
    """Install packages, the newest that fit; gives what has changed. What runs goes on with what it has loaded.

    Args:
        root: the machine's folder: whoever installs there now is waited for by nobody, and nobody installs meanwhile.
        requirements: as pip takes them, without options: those come from pip's own variables and configuration.

    Raises:
        ConfigError: a requirement is an option, or there is no pip.
        InstallError: pip could not install; or another process installs on this machine now.
    """
    if options := [one for one in requirements if one.startswith("-")]:
        raise ConfigError(
            f"{', '.join(options)}: expected packages, and no options of pip",
            hint="pip's options can be set as variables: PIP_INDEX_URL, PIP_NO_INDEX, PIP_FIND_LINKS",
        )
    installer = _installer()
    with alone(root):
        before = _versions()
        done = await anyio.run_process(
            [*installer, "--upgrade", *requirements],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            check=False,
            env={**environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        )
        after = _versions()
    if done.returncode:
        said = [hide_secrets(one) for one in done.stdout.decode(errors="replace").splitlines() if one.strip()]
        raise InstallError(
            f"pip could not install {hide_secrets(' '.join(requirements))}: {'; '.join(said[-_SAID_MAX:])}",
            hint="the workers run on as they are",
            details={"output": said[-50:]},
        )
    names = sorted(before.keys() | after.keys())
    return tuple(
        Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )


def _installer() -> tuple[str, ...]:
    if find_spec("pip") is not None:
        return (sys.executable, "-m", "pip", "install")
    if uv := shutil.which("uv", path=environment().get("PATH")):
        return (uv, "pip", "install", "--python", sys.executable)
    raise ConfigError(
        f"{sys.prefix} has no pip, and uv is not on PATH", hint=f"install it with `{sys.executable} -m ensurepip`"
    )


def _canonical(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


def _versions() -> dict[str, str]:
    importlib.invalidate_caches()
    found: dict[str, str] = {}
    for one in distributions():
        found.setdefault(_canonical(one.name), one.version)
    return found
