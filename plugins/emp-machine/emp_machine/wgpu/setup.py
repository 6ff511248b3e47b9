"""`wgpu setup`: the folders of workers, and the scripts that people call by their paths."""

import os
import shlex
import sys
from pathlib import Path

from emp_core.config import environment
from emp_machine.processes.folder import private
from emp_machine.processes.pidfiles import folder_of
from emp_machine.processes.roster import Known
from emp_machine.render.files import RenderedFile, write_files

__all__ = ["make_folders", "scripts_folder", "write_scripts"]

_SCRIPTS = {"wgpu": "emp_machine.wgpu.command", "worker": "emp_machine.wgpu.worker"}
"""Scripts, and the module that each runs."""


def scripts_folder(root: Path) -> Path:
    """Where the scripts of a machine are."""
    return root / "scripts"


def make_folders(workers: tuple[Known, ...]) -> tuple[Path, ...]:
    """Make the folders of workers, with their ``logs``. What is in them stays.

    Raises:
        MachineError: one cannot be made.
    """
    for worker in workers:
        private(folder_of(worker))
        private(worker.log.parent)
    return tuple(folder_of(worker) for worker in workers)


def write_scripts(root: Path) -> tuple[Path, ...]:
    """Write ``wgpu`` and ``worker``, which speak of this machine wherever they are called from: cron, a container's shell.

    Raises:
        MachineError: they cannot be written.
    """
    folder = scripts_folder(root)
    scripts = [RenderedFile(Path(name), _script(root, module), program=True) for name, module in _SCRIPTS.items()]
    write_files(scripts, folder)
    return tuple(folder / one.path for one in scripts)


def _script(root: Path, module: str) -> str:
    # cron's PATH knows few programs; PM2 and Node.js are found where they were found when this was written.
    folders = [one for one in environment().get("PATH", "").split(os.pathsep) if Path(one).is_absolute()]
    path = shlex.quote(os.pathsep.join(folders or ["/usr/bin", "/bin"]))
    return (
        "#!/bin/sh\n"
        "# Written by `wgpu setup`.\n"
        f"export EMP_MACHINE_ROOT={shlex.quote(str(root))}\n"
        f'export PATH="${{PATH:+$PATH:}}"{path}\n'
        f'exec {shlex.quote(sys.executable)} -m {module} "$@"\n'
    )
