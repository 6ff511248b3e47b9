"""The GPUs that a machine may use: what the driver tells, and what the settings make of it."""

from collections.abc import Mapping, Sequence

from attrs import evolve

from emp_core.config import Settings
from emp_core.worker.gpus import inventory
from emp_machine.plan.model import GpuPlan
from emp_machine.settings import MachineSettings

__all__ = ["found_gpus", "usable_gpus"]

_MASK = "CUDA_VISIBLE_DEVICES"


def found_gpus() -> tuple[tuple[GpuPlan, ...], tuple[str, ...]]:
    """The GPUs that NVIDIA's driver tells of, none without one; and what does not work, a sentence each."""
    found = inventory()
    return tuple(GpuPlan(gpu.index, gpu.model, gpu.memory_mb) for gpu in found.gpus), found.trouble


def usable_gpus(
    settings: Settings,
    machine: MachineSettings,
    environ: Mapping[str, str],
    found: Sequence[GpuPlan],
    trouble: Sequence[str],
    problems: list[str],
    notes: list[str],
) -> tuple[GpuPlan, ...]:
    """The GPUs that the machine's services may have: ``NUM_GPUS`` of them, or the one of ``GPU_ID``.

    Args:
        found: what the driver told of. Where there is none, ``NUM_GPUS`` is believed.
        trouble: what is wrong with the driver.
    """
    if machine.gpu_mode == "mock":
        count = 1 if settings.num_gpus is None else settings.num_gpus
        there: Sequence[GpuPlan] = [GpuPlan(index, model="mock", mock=True) for index in range(count)]
    else:
        notes += trouble
        there = _real(settings, _unmasked(environ, found, problems), trouble, problems, notes)
    if settings.gpu_id is None:
        return tuple(there)
    own = tuple(gpu for gpu in there if gpu.index == settings.gpu_id)
    if not own:
        indexes = ", ".join(str(gpu.index) for gpu in there) or "none"
        problems.append(f"GPU_ID={settings.gpu_id}: there is no such GPU; the machine's are: {indexes}")
    return own


def _real(
    settings: Settings, found: Sequence[GpuPlan], trouble: Sequence[str], problems: list[str], notes: list[str]
) -> Sequence[GpuPlan]:
    wanted, own = settings.num_gpus, settings.gpu_id
    if wanted is None or wanted == len(found):
        return found
    if not found and trouble:
        problems += (f"NUM_GPUS={wanted}: {one}" for one in trouble)
        return found
    if not found:
        notes.append(f"NUM_GPUS={wanted} is believed: no driver here tells of a GPU")
        return [GpuPlan(index) for index in range(wanted)]
    if wanted < len(found):
        return found[:wanted]
    if own is not None and own < wanted and len(found) == 1:
        notes.append(
            f"GPU_ID={own} of NUM_GPUS={wanted} is taken for the only GPU that is to be seen here, as in a container that was "
            "given one"
        )
        return [evolve(found[0], index=own, device=found[0].index)]
    problems.append(f"NUM_GPUS={wanted}: the driver tells of {len(found)}; see what nvidia-smi says, or unset it")
    return found


def _unmasked(environ: Mapping[str, str], found: Sequence[GpuPlan], problems: list[str]) -> Sequence[GpuPlan]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, for who shares a machine with others."""
    mask = environ.get(_MASK)
    if mask is None or not found:
        return found
    named = [one.strip() for one in mask.split(",") if one.strip()]
    if not all(one.isdecimal() for one in named):
        problems.append(f"{_MASK}={mask!r}: expected the indexes of GPUs, separated by commas, or nothing set at all")
        return found
    return [gpu for gpu in found if str(gpu.index) in named]
