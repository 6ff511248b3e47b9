"""What the machine has: the resources that jobs may ask for."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_core.config import Settings
from emp_core.worker.gpus import GpusNow, gpus

__all__ = ["machine_resources", "with_gpus"]

_OF_GPUS = frozenset({"gpu_count", "gpu_index", "gpu_model", "gpu_memory_mb"})


def machine_resources(settings: Settings) -> dict[str, Any]:
    """Amounts and facts by name.

    ``cpu_cores``, ``ram_mb``, ``disk_free_mb``, ``gpu_count``; with a GPU
    ``gpu_index``, ``gpu_model``, ``gpu_memory_mb``. With ``GPU_ID`` the facts are that GPU's; without, the first one's.
    """
    resources: dict[str, Any] = {"cpu_cores": os.cpu_count() or 1}
    if "SC_PHYS_PAGES" in os.sysconf_names:
        resources["ram_mb"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    resources["disk_free_mb"] = shutil.disk_usage(_existing(settings.data_dir)).free // 2**20
    found = gpus()
    own = next((gpu for gpu in found if gpu.index == (settings.gpu_id or 0)), None)
    return with_gpus(resources, settings, GpusNow(own, len(found)))


def with_gpus(resources: Mapping[str, Any], settings: Settings, now: GpusNow) -> dict[str, Any]:
    """The same resources, with the GPUs as they are now. What ``NUM_GPUS`` and ``GPU_ID`` say of a GPU ends when it is lost."""
    facts: dict[str, Any] = {name: fact for name, fact in resources.items() if name not in _OF_GPUS}
    if now.lost:
        # One that is for a single GPU can use no other.
        return facts | {"gpu_count": now.count if settings.gpu_id is None else 0}
    facts["gpu_count"] = now.count if settings.num_gpus is None else settings.num_gpus
    if settings.gpu_id is not None:
        facts["gpu_index"] = settings.gpu_id
    if now.own is not None:
        told = {"gpu_index": now.own.index, "gpu_model": now.own.model, "gpu_memory_mb": now.own.memory_mb}
        facts |= {name: fact for name, fact in told.items() if fact is not None}
    return facts


def _existing(folder: Path) -> Path:
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
