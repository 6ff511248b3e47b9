"""Running workers side by side, for `emp up`, `emp worker` and `emp demo`."""

from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from emp_core.cli.output import clean
from emp_core.config import environment
from emp_core.worker.worker import Worker

__all__ = ["described", "serve", "worker_lines", "workers_from"]


def workers_from(types: str | None) -> list[Worker]:
    """The workers that ``types`` (or else WORKERS) asks for.

    Raises:
        ConfigError: WORKERS, the settings or the service mapping cannot be used; lists everything that is wrong.
    """
    return Worker.all_from_env({**environment(), **({} if types is None else {"WORKERS": types})})


async def serve(
    workers: Sequence[Worker], on_ready: Callable[[], None], *, on_start: Callable[[Worker], None] = lambda _: None
) -> None:
    """Run the workers until all of them have ended. What ends one of them by an error ends the others, too.

    Args:
        on_ready: told when all of them work.
        on_start: told of each that works, before the next one starts.
    """
    async with anyio.create_task_group() as group:
        for worker in workers:
            await group.start(_run, worker, name=f"emp worker {worker.id}")
            on_start(worker)
        on_ready()


async def _run(worker: Worker, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    async with worker:
        await worker.run(task_status=task_status)


def described(workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """The workers for ``--json``."""
    return [{"id": worker.id, "services": sorted(worker.capabilities().services)} for worker in workers]


def worker_lines(workers: Sequence[Worker]) -> list[str]:
    """The workers for people, a line each."""
    return [f"Worker     {clean(one['id'])}: {', '.join(one['services'])}" for one in described(workers)]
