"""`emp machines`: the machines that speak."""

from collections.abc import Mapping
from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import emit, json_option, note, table
from emp_core.queue.machines import MachineStatus, MachineView

__all__ = ["machines"]

_WELL = "well"


@click.command()
@json_option
def machines(as_json: bool) -> int:
    """List the machines that `emp machine up` holds: their phase, GPUs, disk, services and workers.

    A machine that has been silent for 30 seconds is gone from the list.

    \b
    Examples:
      emp machines
      emp machines --json | jq '.data[] | select(.phase != "ready")'
    """

    async def run() -> list[MachineView]:
        async with open_queue(prepared(), only_look=True) as queue:
            return await queue.machines()

    found = run_async(run)
    emit([one.as_dict() for one in found], lambda: _listing(found), as_json=as_json)
    if not found and not as_json:
        note("No machine speaks. `emp machine up` holds one.")
    return DONE


def _listing(found: list[MachineView]) -> str:
    columns = ("machine", "phase", "gpus", "disk free", "services", "workers", "about")
    return table(columns, [_row(one.status) for one in found]) if found else ""


def _row(status: MachineStatus) -> tuple[object, ...]:
    free_mb = status.disk.get("free_mb")
    return (
        status.machine_id,
        status.phase.value,
        _gpus(status),
        "" if free_mb is None else f"{free_mb / 1024:,.0f} GB",
        _well(status.services),
        _well(status.workers),
        status.detail or _problem(status),
    )


def _gpus(status: MachineStatus) -> str:
    models = dict.fromkeys(str(gpu.get("model") or "unknown") for gpu in status.gpus)
    return f"{len(status.gpus)} x {', '.join(models)}" if status.gpus else ""


def _well(those: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{sum(one.get('standing') == _WELL for one in those.values())} of {len(those)}"


def _problem(status: MachineStatus) -> str:
    for name, one in (*status.services.items(), *status.workers.items()):
        if one.get("standing") not in (_WELL, "starting"):
            return f"{name} is {one.get('standing')}: {one.get('reason') or 'no reason is known'}"
    return ""
