"""`emp machine up` takes a bare box to workers, heals what is killed, and leaves nothing behind."""

import os
import signal
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from emp_comfyui.demo import demo
from emp_machine.processes.choosing import find_pm2, open_manager
from emp_machine.processes.interface import ProcessManager
from emp_machine.processes.remains import find_remains

from emp_core import JobQueue, JobSpec, Settings
from emp_core.jobs.states import JobState

from .box import Box
from .rig import lives, until

JOBS = 100
NO_PM2 = "PM2 was not found: `make .venv/node/.ready` installs it; it needs npm"


async def pids(manager: ProcessManager) -> dict[str, int]:
    return {one.name: one.pid for one in await manager.status() if one.pid is not None}


@pytest.mark.parametrize("kind", ["supervisor", "pm2"])
async def test_a_bare_box_runs_a_hundred_jobs_while_a_service_and_a_worker_are_killed(
    tmp_path: Path, kind: str
) -> None:
    if kind == "pm2" and find_pm2(os.environ) is None:
        pytest.skip(NO_PM2)
    box = Box(tmp_path)
    manager = open_manager(box.root, kind, os.environ)
    settings = Settings.from_env({**box.environ, "HUB_REDIS_URL": box.redis_url})
    with box.up("--manager", kind) as up:
        said = await anyio.to_thread.run_sync(up.ready)
        assert {one["standing"] for one in (*said["services"], *said["workers"])} == {"well"}
        assert [one["endpoint"] for one in said["services"]][1:] == [
            f"127.0.0.1:{box.port}",
            f"127.0.0.1:{box.port + 1}",
        ]
        async with JobQueue.connect(settings=settings) as queue:
            assert {one.id for one in await queue.workers()} == {"comfyui-gpu0@box", "comfyui-gpu1@box"}
            [machine] = await queue.machines()
            assert (machine.status.machine_id, machine.status.phase) == ("box", "ready")

            payload = demo().payload
            payload["3"]["inputs"]["steps"] = 3
            jobs = await queue.submit_many([JobSpec(service_required="comfyui", payload=payload) for _ in range(JOBS)])
            before = await pids(manager)
            assert before.keys() == {
                "redis",
                "comfyui-gpu0",
                "comfyui-gpu1",
                "worker-comfyui-gpu0",
                "worker-comfyui-gpu1",
            }

            async def some_are_done() -> bool:
                return (await queue.counts())[JobState.COMPLETED] >= JOBS // 10

            await until(some_are_done, limit_s=60)
            os.kill(before["comfyui-gpu0"], signal.SIGKILL)
            os.kill(before["worker-comfyui-gpu1"], signal.SIGKILL)
            with anyio.fail_after(60):
                done = [await queue.wait(job.id) for job in jobs]
            assert {job.status for job in done} == {JobState.COMPLETED}

            async def healed() -> bool:
                now = await pids(manager)
                [machine] = await queue.machines()
                standings = (*machine.status.services.values(), *machine.status.workers.values())
                return now.keys() == before.keys() and {one["standing"] for one in standings} == {"well"}

            await until(healed, limit_s=60)
            now = await pids(manager)
            assert {name for name in now if now[name] != before[name]} == {"comfyui-gpu0", "worker-comfyui-gpu1"}
            keeper = await manager.pid()

        code = await anyio.to_thread.run_sync(up.end)

    assert code == 0
    assert keeper is not None
    assert not any(lives(pid) for pid in (*before.values(), *now.values(), keeper))
    assert await find_remains(box.root) == []
