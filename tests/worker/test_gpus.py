"""What a worker knows of its GPU: for jobs to ask for, while they run, and when it goes away."""

import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.jobs.requirements import Requirements
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter
from emp_core.worker import gpus as gpus_module
from emp_core.worker import machine
from emp_core.worker.gpus import Gpu, GpuInventory, GpusNow, GpuUse, GpuWatch
from emp_core.worker.machine import machine_resources, with_gpus

from .waiting import until

L4 = Gpu(0, "NVIDIA L4", 24_000, 1_000, 40, "GPU-l4")
T4 = Gpu(1, "NVIDIA T4", 16_000, 500, 10, "GPU-t4")


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
    """A driver that a test steers: reads GPUs, and tells when it did."""

    def __init__(self, *found: Gpu, **told: Any) -> None:
        self.told = GpuInventory(found, **told)
        self.asked: list[int | None] = []

    def __call__(self, only: int | None = None) -> GpuInventory:
        self.asked.append(only)
        return evolve(self.told, gpus=tuple(gpu for gpu in self.told.gpus if only in (None, gpu.index)))

    def has(self, *found: Gpu, **told: Any) -> None:
        """From now on these GPUs are there."""
        self.told = GpuInventory(found, **told)

    async def reach(self, count: int) -> None:
        """Wait until it was asked so often."""
        with anyio.fail_after(10):
            while len(self.asked) < count:  # noqa: ASYNC110 - a thread asks
                await anyio.sleep(0.001)


@asynccontextmanager
async def watched(
    monkeypatch: pytest.MonkeyPatch, read: Reader, index: int = 0, running: Callable[[], list[GpuUse]] = list
) -> AsyncIterator[list[GpusNow]]:
    """What a watch tells that looks all the time."""
    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.0005)
    told: list[GpusNow] = []
    async with anyio.create_task_group() as group:
        group.start_soon(GpuWatch(index, running, told.append, read=read).run)
        await read.reach(1)
        yield told
        group.cancel_scope.cancel()


async def until_told(told: list[GpusNow], count: int) -> GpusNow:
    with anyio.fail_after(10):
        while len(told) < count:  # noqa: ASYNC110 - nothing else tells
            await anyio.sleep(0.001)
    return told[-1]


async def test_a_machine_without_a_driver_is_not_watched():
    read, told = Reader(installed=False), list[GpusNow]()
    with anyio.fail_after(5):
        await GpuWatch(1, lambda: [GpuUse()], told.append, read=read).run()
    assert (read.asked, told) == ([None], [])


async def test_only_the_workers_own_gpu_is_noted_in_every_job_that_runs(monkeypatch: pytest.MonkeyPatch):
    jobs = [GpuUse(), GpuUse()]
    async with watched(monkeypatch, Reader(L4, T4), 1, lambda: jobs):
        with anyio.fail_after(5):
            while any(job.memory_mb is None for job in jobs):  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.001)
    assert [(job.memory_mb, job.utilization) for job in jobs] == [(500, 10.0), (500, 10.0)]


async def test_while_nothing_runs_only_every_tenth_round_looks_and_at_one_gpu_alone(monkeypatch: pytest.MonkeyPatch):
    rounds = 0

    def running() -> list[GpuUse]:
        nonlocal rounds
        rounds += 1
        return []

    read = Reader(L4, T4)
    async with watched(monkeypatch, read, 1, running):
        await read.reach(4)
    assert (rounds - 1) // 10 <= len(read.asked) - 1 <= rounds // 10
    assert (read.asked[0], set(read.asked[1:])) == (None, {1})


async def test_a_gpu_that_is_lost_and_comes_back_is_told(monkeypatch: pytest.MonkeyPatch):
    read = Reader(L4, T4)
    async with watched(monkeypatch, read, 1) as told:
        assert await until_told(told, 1) == GpusNow(T4, 2)
        read.has(L4, trouble=("GPU 1 does not answer: GPU is lost",))
        assert await until_told(told, 2) == GpusNow(None, 1, lost=True)
        await read.reach(len(read.asked) + 3)
        read.has(L4, T4)
        assert await until_told(told, 3) == GpusNow(T4, 2)
        await read.reach(len(read.asked) + 3)
        assert len(told) == 3, "each once"


async def test_a_gpu_that_was_not_there_at_first_is_told_when_it_is(monkeypatch: pytest.MonkeyPatch):
    read = Reader(trouble=("the GPU driver is installed and not loaded",))
    async with watched(monkeypatch, read) as told:
        assert await until_told(told, 1) == GpusNow(None, 0)
        read.has(L4)
        assert await until_told(told, 2) == GpusNow(L4, 1)


async def test_another_gpu_that_moves_up_is_not_taken_for_the_workers(monkeypatch: pytest.MonkeyPatch):
    read = Reader(L4, T4)
    async with watched(monkeypatch, read, 0) as told:
        await until_told(told, 1)
        read.has(evolve(T4, index=0))
        assert await until_told(told, 2) == GpusNow(None, 1, lost=True)


async def test_the_workers_gpu_may_move_up(monkeypatch: pytest.MonkeyPatch):
    read, job = Reader(L4, T4), GpuUse()
    async with watched(monkeypatch, read, 1, lambda: [job]) as told:
        await until_told(told, 1)
        read.has(evolve(T4, index=0, memory_used_mb=700))
        with anyio.fail_after(5):
            while job.memory_mb != 700:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.001)
        await read.reach(len(read.asked) + 2)
        assert (len(told), read.asked[-1]) == (1, 0)


async def test_a_driver_that_cannot_be_asked_takes_no_gpu_away(monkeypatch: pytest.MonkeyPatch):
    """As after an update: what uses the GPU goes on."""
    read = Reader(L4)
    async with watched(monkeypatch, read) as told:
        await until_told(told, 1)
        read.has(trouble=("the GPU driver was updated while an older one is loaded",), certain=False)
        await read.reach(len(read.asked) + 4)
    assert told == [GpusNow(L4, 1)]


async def test_a_driver_that_hangs_does_not_keep_the_watch_from_its_end(monkeypatch: pytest.MonkeyPatch):
    hangs, answer = anyio.Event(), threading.Event()

    def read(only: int | None) -> GpuInventory:
        if only is not None:
            anyio.from_thread.run_sync(hangs.set)
            answer.wait(10)
        return GpuInventory((L4,))

    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.0005)
    try:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(GpuWatch(0, list, lambda _: None, read=read).run)
                await hangs.wait()
                group.cancel_scope.cancel()
        assert not answer.is_set()
    finally:
        answer.set()


async def test_what_was_seen_stands_in_the_attempts_record(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, monkeypatch: pytest.MonkeyPatch
):
    read = worker_watches(monkeypatch, L4)
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    attempt = await steering.next()
    await read.reach(len(read.asked) + 3)
    attempt.complete()
    await queue.wait(job.id, timeout=10)
    [record] = await queue.attempts(job.id)
    assert (record.gpu_memory_mb, record.gpu_utilization) == (1_000, 40.0)


def worker_watches(monkeypatch: pytest.MonkeyPatch, *found: Gpu) -> Reader:
    """Let workers find these GPUs, and look all the time."""
    read = Reader(*found)
    monkeypatch.setattr(gpus_module, "_SAMPLE_EVERY_S", 0.001)
    monkeypatch.setattr(machine, "gpus", lambda: list(read.told.gpus))
    monkeypatch.setattr("emp_core.worker.worker.GpuWatch", partial(GpuWatch, read=read))
    return read


# -- a GPU that goes away --------------------------------------------------------------------------------------------


async def test_jobs_that_need_a_gpu_are_left_alone_while_it_is_lost_and_taken_when_it_is_back(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, monkeypatch: pytest.MonkeyPatch
):
    read = worker_watches(monkeypatch, L4)
    running = await start_worker(steered_binding(steering), poll_s=60.0)
    large = JobSpec("steered", requirements=Requirements(hardware={"gpu_memory_mb": 20_000}))
    lane = queue.keys.lane_workers(large.requirement.lane)
    await queue.submit(large)
    running_on_it = await steering.next()

    read.has(trouble=("GPU 0 does not answer: GPU is lost",))

    async def given_up() -> bool:
        return await queue.client.zscore(lane, running.id) is None

    await until(given_up)
    assert not running_on_it.cancelled, "its service says what becomes of it"
    [view] = await queue.workers()
    assert view.capabilities.resources["gpu_count"] == 0
    waiting = await queue.submit(large)
    any_worker = await queue.submit(JobSpec("steered"))
    other = await steering.next()
    assert other.job.id == any_worker.id
    [verdict] = (await queue.explain(waiting.id)).workers
    assert "gpu_memory_mb is not known, the job wants 20000" in verdict.reasons

    read.has(L4)
    again = await steering.next()
    assert again.job.id == waiting.id
    for attempt in (running_on_it, other, again):
        attempt.complete()
    await queue.wait(waiting.id, timeout=10)
    [view] = await queue.workers()
    assert view.capabilities.resources["gpu_memory_mb"] == 24_000


@pytest.mark.parametrize(
    ("settings", "now", "facts"),
    [
        ({}, GpusNow(None, 1, lost=True), {"gpu_count": 1}),
        ({"num_gpus": 2}, GpusNow(None, 1, lost=True), {"gpu_count": 1}),
        ({"gpu_id": 1, "num_gpus": 2}, GpusNow(None, 1, lost=True), {"gpu_count": 0}),
        ({"gpu_id": 1}, GpusNow(None, 1), {"gpu_count": 1, "gpu_index": 1}),
        (
            {"gpu_id": 1},
            GpusNow(T4, 2),
            {"gpu_count": 2, "gpu_index": 1, "gpu_model": "NVIDIA T4", "gpu_memory_mb": 16_000},
        ),
    ],
    ids=["lost", "lost though declared", "lost the only one that it is for", "not there yet", "there"],
)
def test_the_resources_follow_the_gpu(settings: dict[str, Any], now: GpusNow, facts: dict[str, Any]):
    before = {"cpu_cores": 8, "gpu_count": 3, "gpu_index": 2, "gpu_model": "NVIDIA A10", "gpu_memory_mb": 1}
    assert with_gpus(before, Settings(**settings), now) == {"cpu_cores": 8, **facts}
