"""`emp machine gpus`: the machine's GPUs."""

from typing import Any

import attrs
import click

from emp_core.cli.failures import DONE
from emp_core.cli.output import emit, json_option, note, table, warn
from emp_core.worker.gpus import Gpu, GpuInventory, inventory

__all__ = ["gpus"]


@click.command()
@json_option
def gpus(as_json: bool) -> int:
    """Show the machine's GPUs as NVIDIA's driver tells of them: model, memory, use, and the driver's version.

    What does not work is said, with what to do. NUM_GPUS, GPU_ID and GPU_MODE are not looked at: see `emp machine plan`.

    \b
    Examples:
      emp machine gpus
      emp machine gpus --json
    """
    found = inventory()
    emit(_shown(found), lambda: _text(found), as_json=as_json)
    if not as_json:
        for one in found.trouble:
            warn(one)
        if not found.gpus and not found.trouble:
            about = "none tells of one" if found.installed else "NVIDIA's driver is not installed"
            note(f"No GPU: {about}. GPU_MODE=mock pretends some.")
    return DONE


def _shown(found: GpuInventory) -> dict[str, Any]:
    return {
        "driver": found.driver,
        "installed": found.installed,
        "gpus": [attrs.asdict(gpu) for gpu in found.gpus],
        "trouble": list(found.trouble),
    }


def _text(found: GpuInventory) -> str:
    if not found.gpus:
        return ""
    driver = f"Driver {found.driver}\n\n" if found.driver else ""
    return driver + table(("gpu", "model", "memory", "in use", "busy"), map(_row, found.gpus))


def _row(gpu: Gpu) -> tuple[Any, ...]:
    busy = "" if gpu.utilization is None else f"{gpu.utilization} %"
    return (gpu.index, gpu.model or "unknown", _size(gpu.memory_mb), _size(gpu.memory_used_mb), busy)


def _size(megabytes: int | None) -> str:
    return "" if megabytes is None else f"{megabytes / 1024:.1f} GiB"
