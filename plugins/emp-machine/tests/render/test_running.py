"""What was rendered runs: supervisor starts a machine's Redis and its worker from the files, and a job is done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.ports import free_port


async def test_supervisor_runs_the_files_and_a_job_is_done(tmp_path: Path) -> None:
    port = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("EMP_", "HUB_", "WORKER"))},
        "WORKERS": "echo",
        "MACHINE_ID": "box",
        "EMP_MACHINE_ROOT": str(tmp_path / "root"),
        "EMP_MACHINE_REDIS_PORT": str(port),
        "EMP_DATA_DIR": str(tmp_path / "data"),
        "EMP_CAPABILITIES": '{"owner": "it\'s me"}',  # more than supervisor's file can hold
    }

    async def emp(*arguments: str) -> None:
        await anyio.run_process(
            [sys.executable, "-m", "emp_core.cli", "machine", *arguments], env=environ, cwd=tmp_path
        )

    await emp("install")
    await emp("render", "supervisor", "--output", "out")
    supervisord = [
        sys.executable,
        "-m",
        "supervisor.supervisord",
        "-n",
        "-c",
        str(tmp_path / "out" / "supervisord.conf"),
    ]
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    async with await anyio.open_process(
        supervisord, env=bare, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            settings = Settings(redis_wait_s=60.0)
            async with JobQueue.connect(f"redis://127.0.0.1:{port}", settings=settings) as queue:
                job = await queue.submit(JobSpec("echo", payload={"hello": 1}))
                done = await queue.wait(job.id, timeout=60)
                assert done.worker_id == "echo@box"
                [worker] = await queue.workers()
                assert worker.capabilities.custom["owner"] == "it's me"
        finally:
            process.send_signal(signal.SIGTERM)
            with anyio.fail_after(60):
                await process.wait()
    logs = tmp_path / "root" / "worker_echo" / "logs" / "output.log"
    assert "worker ended" in logs.read_text()
