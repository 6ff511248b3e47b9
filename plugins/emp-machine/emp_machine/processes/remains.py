"""Finding what a process manager has left behind.

Every process of the machine layer carries a mark in its environment, which its children inherit. So they are told from
strangers without a process id that may be somebody else's by now.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
from attrs import evolve, frozen

from emp_machine.plan.model import Process

__all__ = ["MARK", "Remains", "end_remains", "find_remains", "manager_mark", "marked"]

MARK = "EMP_MACHINE_PROCESS"
"""The variable that marks a process: ``name@root``. A manager has no name."""

_LOOK_EVERY_S = 0.05


@frozen
class Remains:
    """A process of the machine layer that is there.

    Attributes:
        name: which of the plan's processes it is, or is a child of; empty: it is a manager.
    """

    pid: int
    name: str


def marked(process: Process, root: Path) -> Process:
    """The process with its mark."""
    return evolve(process, environ={**process.environ, MARK: f"{process.name}@{root}"})


def manager_mark(root: Path) -> dict[str, str]:
    """The variable that marks a process manager."""
    return {MARK: f"@{root}"}


async def find_remains(root: Path) -> list[Remains]:
    """All processes of this user that carry a mark of ``root``, but for managers."""
    return [one for one in await _marked(root) if one.name]


async def end_remains(root: Path, *, names: frozenset[str] | None = None, patience_s: float = 5.0) -> None:
    """End what carries a mark of ``root``: asked first, killed after ``patience_s``. Returns when it has ended.

    Args:
        names: only these processes, and their children. None: all, and first of all their managers, which are not asked:
            they would start again what ends.
    """
    if names is None:
        await _end([one for one in await _marked(root) if not one.name], root, 0)
    await _end([one for one in await find_remains(root) if names is None or one.name in names], root, patience_s)


async def _end(left: list[Remains], root: Path, patience_s: float) -> None:
    for number, limit_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
        if limit_s > 0:
            for one in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(one.pid, number)
        with anyio.move_on_after(limit_s):
            while left:
                there = {one.pid for one in await _marked(root)}
                left = [one for one in left if one.pid in there]
                if left:
                    await anyio.sleep(_LOOK_EVERY_S)  # the system tells nobody but the parent
        if not left:
            return


async def _marked(root: Path) -> list[Remains]:
    return await anyio.to_thread.run_sync(_find, root)


def _find(root: Path) -> list[Remains]:
    us = os.getpid()
    return [Remains(pid, name) for pid, name in _marks(root) if pid != us]


def _marks(root: Path) -> Iterator[tuple[int, str]]:
    end = f"@{root}"
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is somebody else's
            mark = process.environ().get(MARK, "")
            if mark.endswith(end):
                yield process.pid, mark.removesuffix(end)
