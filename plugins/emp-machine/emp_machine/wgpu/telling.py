"""What `wgpu` and `worker` do and say. Words and exit codes are for scripts, too."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from emp_core.cli.failures import DONE, USAGE, explain
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, note
from emp_machine.processes.interface import ProcessStatus
from emp_machine.processes.pidfiles import folder_of
from emp_machine.processes.roster import Known
from emp_machine.wgpu.workers import Target, Workers

__all__ = ["NOT_RUNNING", "UNKNOWN", "change", "status"]

NOT_RUNNING, UNKNOWN = 3, 4
"""Exit codes of ``status``, as the Linux Standard Base gives them to scripts in init.d."""

Deed = Callable[[Workers], Awaitable[Sequence[ProcessStatus]]]


def change(deed: Deed, target: Target, env_file: Path | None, *, to_start: bool, as_json: bool) -> int:
    """Start, stop or restart workers, and say how they are then."""

    async def run() -> tuple[Workers, Sequence[ProcessStatus]]:
        workers = await Workers.find(target, env_file, to_start=to_start)
        return workers, await deed(workers)

    _tell(*run_async(run), as_json=as_json)
    return DONE


def status(target: Target, env_file: Path | None, *, as_json: bool) -> int:
    """Say how workers are. The exit code says whether all of them run."""

    async def run() -> tuple[Workers, Sequence[ProcessStatus]]:
        workers = await Workers.find(target, env_file)
        return workers, await workers.look()

    try:
        workers, statuses = run_async(run)
    except Exception as error:  # a script asks for a state: whatever is in the way, it is not known
        failure = explain(error)
        if failure.exit_code == USAGE:
            raise
        failure.tell(as_json=as_json)
        return UNKNOWN
    _tell(workers, statuses, as_json=as_json)
    return DONE if all(one.pid is not None for one in statuses) else NOT_RUNNING


def _tell(workers: Workers, statuses: Sequence[ProcessStatus], *, as_json: bool) -> None:
    rows = [_facts(worker, one) for worker, one in zip(workers.those, statuses, strict=True)]
    emit({"workers": rows}, lambda: "\n".join(map(_line, rows)), as_json=as_json)
    for row in rows:
        if row["reason"] and not as_json:
            note(f"{row['name']}: {clean(row['reason'])}")


def _facts(worker: Known, one: ProcessStatus) -> dict[str, Any]:
    return {**one.as_dict(), "gpu": worker.gpu, "folder": folder_of(worker), "log": worker.log}


def _line(row: dict[str, Any]) -> str:
    """``worker_gpu0 running 4711 worker-comfyui-gpu0``; a dash where there is no process."""
    return f"{row['folder'].name} {row['state']} {row['pid'] or '-'} {row['name']}"
