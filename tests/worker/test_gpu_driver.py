"""What the driver's own library tells of the machine's GPUs: whole, without one, and with one in trouble."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emp_core.worker import gpus as gpus_module
from emp_core.worker.gpus import GpuInventory

DRIVER = r"""
/* A stand-in for NVIDIA's library: GPU 0 tells all, GPU 1 its name only, GPU 2 has fallen off the bus. */
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } use_t;
enum { OK = 0, NOT_SUPPORTED = 3, LOST = 15 };
int nvmlInit_v2(void) { return INIT; }
int nvmlInitWithFlags(unsigned int flags) { return INIT; }
int nvmlShutdown(void) {
#ifdef LOST_MEANWHILE
  return LOST;
#endif
  return OK;
}
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "driver not loaded"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int length) {
  const char *version = "570.86.15";
  for (unsigned int i = 0; i < length; i++) if (!(text[i] = version[i])) break;
  return OK;
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **gpu) { *gpu = (void *)(i + 1ul); return i == 2 ? LOST : OK; }
int nvmlDeviceGetName(void *gpu, char *name, unsigned int length) {
  const char *text = gpu == (void *)1 ? "NVIDIA L4" : "NVIDIA GB10";
  for (unsigned int i = 0; i < length; i++) if (!(name[i] = text[i])) break;
  return OK;
}
int nvmlDeviceGetUUID(void *gpu, char *uuid, unsigned int length) {
  for (unsigned int i = 0; i < length; i++) if (!(uuid[i] = "GPU-a"[i])) break;
  return gpu == (void *)1 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *memory) {
  *memory = (memory_t){24000ull << 20, 23000ull << 20, 1000ull << 20};
  return gpu == (void *)1 ? OK : NOT_SUPPORTED;
}
#ifdef TELLS_USE
int nvmlDeviceGetUtilizationRates(void *gpu, use_t *use) { *use = (use_t){40, 7}; return gpu == (void *)1 ? OK : NOT_SUPPORTED; }
#endif
"""

PROGRAM = """
import json
from attrs import asdict
from emp_core.config import Settings
from emp_core.worker.gpus import gpus, inventory
from emp_core.worker.machine import machine_resources
found = [gpus(), inventory(1).gpus, inventory(2).gpus, inventory(3).gpus]
seen, *alone = [[asdict(gpu) for gpu in some] for some in found]
print(json.dumps([seen, machine_resources(Settings(gpu_id=1)), {**asdict(inventory()), "alone": alone}]))
"""


@pytest.fixture
def with_driver(tmp_path: Path) -> Callable[..., tuple[Any, Any, Any]]:
    """What a process finds on a machine with such a driver: its GPUs, the resources of a worker for GPU 1, and all."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler: apt-get install gcc")

    def found(*flags: str) -> tuple[Any, Any, Any]:
        (tmp_path / "driver.c").write_text(DRIVER)
        library = tmp_path / "libnvidia-ml.so.1"
        command = [compiler, "-shared", "-fPIC", "-w", *flags, "-o", str(library), str(tmp_path / "driver.c")]
        subprocess.run(command, check=True, capture_output=True)
        environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
        ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True)
        seen, resources, inventory = json.loads(ended.stdout.splitlines()[-1])
        return seen, resources, inventory

    return found


def test_the_driver_is_asked_and_what_it_does_not_tell_is_none(with_driver: Callable[..., tuple[Any, Any, Any]]):
    seen, resources, all_told = with_driver("-DINIT=0", "-DTELLS_USE")
    assert seen == [
        {
            "index": 0,
            "model": "NVIDIA L4",
            "memory_mb": 24000,
            "memory_used_mb": 1000,
            "utilization": 40,
            "uuid": "GPU-a",
        },
        {
            "index": 1,
            "model": "NVIDIA GB10",
            "memory_mb": None,
            "memory_used_mb": None,
            "utilization": None,
            "uuid": None,
        },
    ], "the one that is lost does not hide the others"
    assert (resources["gpu_count"], resources["gpu_index"], resources["gpu_model"]) == (2, 1, "NVIDIA GB10")
    assert "gpu_memory_mb" not in resources
    assert (all_told["gpus"], all_told["driver"], all_told["installed"]) == (seen, "570.86.15", True)
    assert all_told["trouble"] == ["GPU 2 does not answer: GPU is lost; nvidia-smi says more"]
    assert all_told["certain"], "so it is not there"
    assert all_told["alone"] == [[seen[1]], [], []], "when asked about 1, about the lost one, and about none of them"


def test_a_driver_that_is_too_old_to_tell_something_tells_the_rest(with_driver: Callable[..., tuple[Any, Any, Any]]):
    [first, _], _, _ = with_driver("-DINIT=0")
    assert (first["memory_mb"], first["utilization"]) == (24000, None)


def test_what_a_driver_told_before_it_went_away_holds(with_driver: Callable[..., tuple[Any, Any, Any]]):
    seen, _, _ = with_driver("-DINIT=0", "-DLOST_MEANWHILE")
    assert [one["model"] for one in seen] == ["NVIDIA L4", "NVIDIA GB10"]


@pytest.mark.parametrize(
    ("code", "words", "certain"),
    [
        (4, "may not be used by this user", False),
        (9, "is installed and not loaded", True),
        (18, "was updated while an older one is loaded: restart the machine", False),
        (999, "does not work: Unknown Error", False),
    ],
)
def test_a_driver_that_does_not_work_is_no_gpu(
    with_driver: Callable[..., tuple[Any, Any, Any]], code: int, words: str, certain: bool
):
    seen, resources, all_told = with_driver(f"-DINIT={code}")
    assert (seen, resources["gpu_count"], all_told["installed"]) == ([], 0, True)
    [trouble] = all_told["trouble"]
    assert words in trouble
    assert all_told["certain"] == certain, "whether a GPU that was there is lost"


def test_without_a_driver_there_are_no_gpus():
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    assert gpus_module.gpus() == []
    assert gpus_module.inventory() == GpuInventory(installed=False)
