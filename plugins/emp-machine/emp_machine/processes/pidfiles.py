"""``worker.pid`` in a worker's folder: for people and their scripts to read. Nothing here ever reads it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from emp_core.log.logger import get_logger
from emp_machine.plan.model import Process
from emp_machine.processes.roster import Known

__all__ = ["folder_of", "note_pids", "pid_file"]

log = get_logger("emp.machine")


def folder_of(worker: Process | Known) -> Path:
    """The folder of a worker, which holds ``logs/output.log``."""
    return worker.log.parent.parent


def pid_file(worker: Process | Known) -> Path:
    """The file that tells the number of its process."""
    return folder_of(worker) / "worker.pid"


def note_pids(workers: Iterable[Process | Known], pids: Mapping[str, int | None]) -> None:
    """Write the numbers of processes, by name, into the files of workers; a worker without a process has no file.

    A file that cannot be written is warned of: whoever holds the machine goes on.
    """
    for worker in workers:
        pid, file = pids.get(worker.name), pid_file(worker)
        try:
            if pid is None:
                file.unlink(missing_ok=True)
            elif _said(file) != f"{pid}\n":
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh = file.with_name(f".{file.name}.{os.getpid()}")
                fresh.write_text(f"{pid}\n", encoding="ascii")
                fresh.replace(file)
        except OSError as error:
            log.warning("the number of a worker's process cannot be written", file=str(file), error=str(error))


def _said(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""
