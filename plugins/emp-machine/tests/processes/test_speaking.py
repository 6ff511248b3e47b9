"""A machine says what it is about, and asks Redis for its workers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve
from emp_machine.plan.model import GpuPlan, MachinePlan, Process, ProcessKind
from emp_machine.processes.care import Standing, Verdict
from emp_machine.processes.probing import Workers, all_probes
from emp_machine.speaking import Speaker, read_verdicts

from emp_core import JobQueue, Settings
from emp_core.queue.connection import connect
from emp_core.queue.machines import SILENT_S, MachinePhase, MachineStatus
from emp_core.testing.time_lapse import TimeLapse
from emp_core.testing.workers import WorkerStarter

from .rig import subject, until


def plan_of(root: Path) -> MachinePlan:
    service = subject(root, "notes-gpu0", port=8188, gpu=0)
    worker = subject(root, "worker-notes", kind=ProcessKind.WORKER, needs=("notes-gpu0",))
    return MachinePlan("box", root, (GpuPlan(0, "mock", mock=True),), (), (service, worker))


@asynccontextmanager
async def speaking(plan: MachinePlan, queue: JobQueue) -> AsyncIterator[Speaker]:
    speaker = Speaker(plan, queue.client, queue.keys)
    async with anyio.create_task_group() as group:
        group.start_soon(speaker.run)
        yield speaker
        group.cancel_scope.cancel()


async def said(queue: JobQueue) -> MachineStatus | None:
    found = await queue.machines()
    return found[0].status if found else None


async def test_every_change_is_said_with_how_the_processes_stand(queue: JobQueue, tmp_path: Path) -> None:
    async with speaking(plan_of(tmp_path / "box"), queue) as speaker:
        speaker.say(MachinePhase.INSTALLING, "notes: fetching, 40%")

        async def installing() -> bool:
            status = await said(queue)
            return status is not None and (status.phase, status.detail) == ("installing", "notes: fetching, 40%")

        await until(installing)
        speaker.say(MachinePhase.READY)
        speaker.judge({"notes-gpu0": Verdict(Standing.GIVEN_UP, "no such model", 3), "worker-notes": Verdict()})

        async def ready() -> bool:
            status = await said(queue)
            return status is not None and status.phase == "ready"

        await until(ready)
    status = await said(queue)
    assert status is not None
    assert status.services == {
        "notes-gpu0": {
            "standing": "given up",
            "reason": "no such model",
            "restarts": 3,
            "gpu": 0,
            "endpoint": "127.0.0.1:8188",
        }
    }
    assert status.workers["worker-notes"]["standing"] == "waiting"
    assert status.gpus == ({"index": 0, "model": "mock", "memory_mb": None},)
    assert 0 < status.disk["free_mb"] < status.disk["total_mb"]
    assert {"python", "emp-core", "emp-machine"} <= status.versions.keys()


async def test_it_is_said_again_before_the_machine_counts_as_silent(queue: JobQueue, tmp_path: Path) -> None:
    time = TimeLapse.here()
    async with speaking(plan_of(tmp_path / "box"), queue) as speaker:
        await until(lambda: said(queue))
        key = queue.keys.machine("box", "status")
        await queue.client.delete(key)
        assert await said(queue) is None
        spoken: list[Any] = []
        speak = speaker.speak

        async def noted() -> None:
            await speak()
            spoken.append(anyio.current_time())

        speaker.speak = noted  # type: ignore[method-assign]
        passed_s = await time.until(lambda: bool(spoken), most_s=60)
    assert passed_s <= SILENT_S / 2
    assert await said(queue) is not None


async def test_other_commands_read_how_the_processes_stand_until_it_ends(queue: JobQueue, tmp_path: Path) -> None:
    root = tmp_path / "box"
    assert read_verdicts(root) == {}
    verdicts = {"notes-gpu0": Verdict(Standing.UNWELL, "no answer", 2)}
    async with speaking(plan_of(root), queue) as speaker:
        speaker.judge(verdicts)
        await until(lambda: read_verdicts(root) == verdicts)
        speaker.forget()
    assert read_verdicts(root) == {}


async def test_while_redis_is_away_the_machine_goes_on(emp_settings: Settings, tmp_path: Path) -> None:
    away = evolve(emp_settings, redis_url="redis://127.0.0.1:1")
    client = connect("redis://127.0.0.1:1", away)
    plan = plan_of(tmp_path / "box")
    queue = JobQueue(None, away)
    speaker = Speaker(plan, client, queue.keys)
    speaker.judge({"notes-gpu0": Verdict(Standing.WELL)})
    await speaker.speak()
    assert read_verdicts(plan.root) == {"notes-gpu0": Verdict(Standing.WELL)}
    await client.aclose()


def worker_process(root: Path, worker_id: str, machine_id: str) -> Process:
    environ = {"WORKER_ID": worker_id, "MACHINE_ID": machine_id}
    return subject(root, f"worker-{worker_id}", kind=ProcessKind.WORKER, environ=environ)


async def test_a_worker_works_while_redis_knows_its_heartbeat(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    running = await start_worker(name="one")
    processes = [worker_process(tmp_path, "one", "test"), worker_process(tmp_path, "two", "test")]
    probes = all_probes(processes, None, queue.client, queue.settings)  # type: ignore[arg-type]  # none has a health check
    assert await probes["worker-one"].ask() is True
    assert await probes["worker-two"].ask() is False
    assert "two@test" in probes["worker-two"].problem
    await running.end()
    workers = Workers(queue.client, queue.keys)
    assert await workers.names() == frozenset()


async def test_nobody_can_tell_of_workers_while_redis_is_away(emp_settings: Settings) -> None:
    client = connect("redis://127.0.0.1:1", emp_settings)
    assert await Workers(client, JobQueue(None, emp_settings).keys).names() is None
    await client.aclose()


async def test_a_full_disk_does_not_end_the_machine(queue: JobQueue, tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "box")
    (tmp_path / "box").write_text("no folder")
    await Speaker(plan, queue.client, queue.keys).speak()
    status = await said(queue)
    assert status is not None
    assert status.phase == "starting"
