"""Which process manager keeps a machine's processes."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from emp_core.errors import ConfigError
from emp_machine.processes.interface import ProcessManager
from emp_machine.processes.pm2 import Pm2Manager, pm2_runs
from emp_machine.processes.roster import read_roster
from emp_machine.processes.supervisor import SupervisorManager

__all__ = ["end_other_managers", "find_pm2", "open_manager"]


def find_pm2(environ: Mapping[str, str]) -> Path | None:
    """PM2's program: the one on PATH, or the one that npm has put beside this Python; None: it is not installed."""
    beside = Path(sys.prefix) / "node" / "node_modules" / ".bin"
    found = shutil.which("pm2", path=environ.get("PATH")) or shutil.which("pm2", path=str(beside))
    # It is a script of Node's, and no use without.
    return Path(found) if found and shutil.which("node", path=environ.get("PATH")) else None


def open_manager(root: Path, wanted: str, environ: Mapping[str, str]) -> ProcessManager:
    """The process manager of a machine's folder. It need not be there yet.

    Args:
        wanted: ``pm2``, ``supervisor``; ``auto``: the one that was used last, else PM2 where it is installed, else
            supervisor.

    Raises:
        ConfigError: PM2 is asked for and is not installed; or it keeps this machine now, and is not to be found from here.
    """
    pm2 = find_pm2(environ)
    if wanted == "auto":
        last = _last(root)
        if last == "pm2" and pm2 is None and pm2_runs(root):
            raise ConfigError(
                "PM2 keeps the processes of this machine, and it or Node.js is not on this PATH",
                hint="add their folders to PATH: cron knows few; the scripts that `wgpu setup` writes know those of its caller",
            )
        wanted = last if last == "supervisor" or pm2 is not None else "auto"
    if wanted == "supervisor" or (wanted == "auto" and pm2 is None):
        return SupervisorManager(root, environ)
    if pm2 is None:
        raise ConfigError(
            "PM2 is not installed, or Node.js is not",
            hint="install Node.js, and PM2 with `npm install --global pm2`; or use supervisor, which is here already: "
            "EMP_PROCESS_MANAGER=supervisor, or `--manager supervisor`",
        )
    return Pm2Manager(root, environ, pm2)


async def end_other_managers(manager: ProcessManager, environ: Mapping[str, str]) -> None:
    """End what another kind of manager runs in the same folder: two of them would run everything twice.

    Raises:
        MachineError: it does not do as it was told.
    """
    last = _last(manager.root)
    if last in ("auto", manager.kind) or (last == "pm2" and find_pm2(environ) is None):
        return
    await open_manager(manager.root, last, environ).shutdown()


def _last(root: Path) -> str:
    """The kind of manager that was used last; ``auto``: none was."""
    roster = read_roster(root)
    return "auto" if roster is None else roster.manager
