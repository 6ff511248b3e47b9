"""Workers in processes of their own, for tests that kill or stop them."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import Process

from emp_core.config import Settings

__all__ = ["worker_process"]

_WORKER = """
import anyio
from emp_core.worker.worker import Worker

async def main():
    async with Worker.from_env() as worker:
        await worker.run()

anyio.run(main)
"""


@asynccontextmanager
async def worker_process(
    settings: Settings, workers: str, name: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run a worker as ``NAME@test`` until the block ends; then it is killed. What it logs is in the process's ``stdout``.

    Args:
        settings: Redis, namespace, folder, lease and grace time are those.
        workers: what it works for, as ``WORKERS`` has it.
        environ: more environment variables.
    """
    variables = {
        **os.environ,
        "HUB_REDIS_URL": settings.redis_url or "",
        "EMP_NAMESPACE": settings.namespace,
        "EMP_DATA_DIR": str(settings.data_dir),
        "EMP_LEASE_S": str(settings.lease_s),
        "EMP_GRACE_S": str(settings.grace_s),
        "MACHINE_ID": "test",
        "WORKER_ID": name,
        "WORKERS": workers,
        "PYTHONUNBUFFERED": "1",
        **(environ or {}),
    }
    async with await anyio.open_process(
        [sys.executable, "-c", _WORKER], env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # the test killed it
                process.kill()
