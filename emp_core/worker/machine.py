"""What the machine has: the resources that jobs may ask for."""

import os
import shutil
from pathlib import Path
from typing import Any

from emp_core.config import Settings
from emp_core.worker.gpus import gpus

__all__ = ["machine_resources"]


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
    resources["gpu_count"] = len(found) if settings.num_gpus is None else settings.num_gpus
    if settings.gpu_id is not None:
        resources["gpu_index"] = settings.gpu_id
    for gpu in found:
        if gpu.index == (settings.gpu_id or 0):
            facts = {"gpu_index": gpu.index, "gpu_model": gpu.model, "gpu_memory_mb": gpu.memory_mb}
            resources.update({name: fact for name, fact in facts.items() if fact is not None})
    return resources


def _existing(folder: Path) -> Path:
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
