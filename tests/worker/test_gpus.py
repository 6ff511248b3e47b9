"""What is known of the machine's GPUs, with the driver's own library, without one, and with one in trouble."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter
from emp_core.worker import gpus as gpus_module
from emp_core.worker import machine
from emp_core.worker.gpus import Gpu, GpuInventory, GpuUse, GpuWatch
from emp_core.worker.machine import machine_resources

L4 = Gpu(0, "NVIDIA L4", 24_000, 1_000, 40)
T4 = Gpu(1, "NVIDIA T4", 16_000, 500, 10)

DRIVER = r"""
/* A stand-in for NVIDIA's library: GPU 0 tells all, GPU 1 its name only, GPU 2 has fallen off the bus. */
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } use_t;
enum { OK = 0, NOT_SUPPORTED = 3, LOST = 15 };
int nvmlInit_v2(void) { return INIT; }
int nvmlInitWithFlags(unsigned int flags) { return INIT; }
int nvmlShutdown(void) { return OK; }
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
print(json.dumps([[asdict(gpu) for gpu in gpus()], machine_resources(Settings(gpu_id=1)), asdict(inventory())]))
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
        {"index": 0, "model": "NVIDIA L4", "memory_mb": 24000, "memory_used_mb": 1000, "utilization": 40},
        {"index": 1, "model": "NVIDIA GB10", "memory_mb": None, "memory_used_mb": None, "utilization": None},
    ], "the one that is lost does not hide the others"
    assert (resources["gpu_count"], resources["gpu_index"], resources["gpu_model"]) == (2, 1, "NVIDIA GB10")
    assert "gpu_memory_mb" not in resources
    assert (all_told["gpus"], all_told["driver"], all_told["installed"]) == (seen, "570.86.15", True)
    assert all_told["trouble"] == ["GPU 2 does not answer: GPU is lost; nvidia-smi says more"]


def test_a_driver_that_is_too_old_to_tell_something_tells_the_rest(with_driver: Callable[..., tuple[Any, Any, Any]]):
    [first, _], _, _ = with_driver("-DINIT=0")
    assert (first["memory_mb"], first["utilization"]) == (24000, None)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, "may not be used by this user"),
        (9, "is installed and not loaded"),
        (18, "was updated while an older one is loaded: restart the machine"),
        (999, "does not work: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_work_is_no_gpu(with_driver: Callable[..., tuple[Any, Any, Any]], code: int, words: str):
    seen, resources, all_told = with_driver(f"-DINIT={code}")
    assert (seen, resources["gpu_count"], all_told["installed"]) == ([], 0, True)
    [trouble] = all_told["trouble"]
    assert words in trouble


def test_without_a_driver_there_are_no_gpus():
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    assert gpus_module.gpus() == []
    assert gpus_module.inventory() == GpuInventory(installed=False)


# -- what jobs may ask for -------------------------------------------------------------------------------------------


def resources_with(monkeypatch: pytest.MonkeyPatch, folder: Path, *found: Gpu, **settings: Any) -> dict[str, Any]:
    monkeypatch.setattr(machine, "gpus", lambda: list(found))
    return machine_resources(Settings(data_dir=folder / "not" / "yet" / "there", **settings))


def test_a_machine_without_gpu_has_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    resources = resources_with(monkeypatch, tmp_path)
    assert resources["gpu_count"] == 0
    assert not {"gpu_index", "gpu_model", "gpu_memory_mb"} & resources.keys()
    assert resources["cpu_cores"] == os.cpu_count()
    assert resources["ram_mb"] > 100
    assert abs(resources["disk_free_mb"] - shutil.disk_usage(tmp_path).free // 2**20) < 1000


def test_the_facts_are_of_the_gpu_that_the_worker_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    first = resources_with(monkeypatch, tmp_path, L4, T4)
    assert (first["gpu_count"], first["gpu_index"], first["gpu_model"], first["gpu_memory_mb"]) == (
        2,
        0,
        "NVIDIA L4",
        24_000,
    )
    second = resources_with(monkeypatch, tmp_path, L4, T4, gpu_id=1)
    assert (second["gpu_index"], second["gpu_model"], second["gpu_memory_mb"]) == (1, "NVIDIA T4", 16_000)


def test_a_gpu_that_was_named_and_is_not_there_has_no_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    resources = resources_with(monkeypatch, tmp_path, L4, gpu_id=7, num_gpus=8)
    assert (resources["gpu_index"], resources["gpu_count"]) == (7, 8)
    assert not {"gpu_model", "gpu_memory_mb"} & resources.keys()


# -- while jobs run --------------------------------------------------------------------------------------------------


def test_the_most_memory_and_the_mean_use_are_kept():
    use = GpuUse()
    assert (use.memory_mb, use.utilization) == (None, None)
    for used_mb, percent in ((1_000, 40), (3_000, 100), (2_000, 0), (None, None)):
        use.note(evolve(L4, memory_used_mb=used_mb, utilization=percent))
    assert (use.memory_mb, use.utilization) == (3_000, 46.7)


class Reader:
    """Reads GPUs, and tells when it did."""

    def __init__(self, *found: Gpu) -> None:
        self.found = list(found)
        self.reads = 0

    def __call__(self) -> list[Gpu]:
        self.reads += 1
        return self.found


async def test_a_machine_without_such_a_gpu_is_not_watched():
    read = Reader(L4)
    with anyio.fail_after(5):
        await GpuWatch(1, lambda: [GpuUse()], read=read).run()
    assert read.reads == 1


async def test_only_the_workers_own_gpu_is_noted_in_every_job_that_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.001)
    jobs = [GpuUse(), GpuUse()]
    async with anyio.create_task_group() as group:
        group.start_soon(GpuWatch(1, lambda: jobs, read=Reader(L4, T4)).run)
        with anyio.fail_after(5):
            while any(job.memory_mb is None for job in jobs):  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    assert [(job.memory_mb, job.utilization) for job in jobs] == [(500, 10.0), (500, 10.0)]


async def test_the_gpu_is_left_alone_while_nothing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.001)
    asked = anyio.Event()
    looks = 0

    def running() -> list[GpuUse]:
        nonlocal looks
        looks += 1
        if looks == 3:
            asked.set()
        return []

    read = Reader(L4)
    async with anyio.create_task_group() as group:
        group.start_soon(GpuWatch(0, running, read=read).run)
        with anyio.fail_after(5):
            await asked.wait()
        group.cancel_scope.cancel()
    assert read.reads == 1


async def test_what_was_seen_stands_in_the_attempts_record(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.001)
    read = Reader(L4)
    monkeypatch.setattr("emp_core.worker.worker.GpuWatch", partial(GpuWatch, read=read))
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    before = read.reads
    with anyio.fail_after(10):
        while read.reads < before + 3:  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(0.002)
    attempt.complete()
    await queue.wait(job.id, timeout=10)
    [record] = await queue.attempts(job.id)
    assert (record.gpu_memory_mb, record.gpu_utilization) == (1_000, 40.0)
