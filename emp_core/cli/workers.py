"""`emp workers`: the workers that are alive, and draining them."""

import click

from emp_core.cli.changing import change_each
from emp_core.cli.failures import DONE
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note, table
from emp_core.jobs.matching import ServiceOffer
from emp_core.jobs.requirements import is_finite
from emp_core.queue.queue import JobQueue
from emp_core.queue.workers import WorkerView

__all__ = ["workers"]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def workers(context: click.Context, as_json: bool) -> int:
    """List the workers that are alive: their services, why one is withdrawn, and what the machine has.

    \b
    Examples:
      emp workers
      emp workers --json | jq '.data[].services'
      emp workers drain gpu0@rented-7
    """
    return _list(as_json) if context.invoked_subcommand is None else DONE


def _list(as_json: bool) -> int:

    async def run() -> list[WorkerView]:
        async with open_queue(prepared(), only_look=True) as queue:
            return await queue.workers()

    found = run_async(run)
    emit([worker.as_dict() for worker in found], lambda: _listing(found), as_json=as_json)
    if not found and not as_json:
        note("No worker is alive. `emp up` and `emp worker` start some.")
    return DONE


@workers.command()
@click.argument("worker_ids", nargs=-1, required=True, metavar="WORKER...")
@json_option
def drain(worker_ids: tuple[str, ...], as_json: bool) -> int:
    """Tell workers to take no more jobs, and to end when those that they have are done.

    WORKER is an id that `emp workers` lists. As after SIGTERM, jobs that still run after EMP_GRACE_S seconds go back to
    the queue, and a worker's process ends with 0. Whatever starts processes that ended starts it again: end it there
    instead (`emp machine stop`). With --json: the workers that were told.

    \b
    Examples:
      emp workers drain gpu0@rented-7 gpu1@rented-7
    """

    async def tell(queue: JobQueue, worker_id: str) -> str:
        await queue.drain_worker(worker_id)
        return worker_id

    return change_each(
        worker_ids, tell, lambda one: {"id": one}, lambda one: f"{clean(one)}  was told to drain", as_json=as_json
    )


def _listing(found: list[WorkerView]) -> str:
    rows = []
    for worker in found:
        has = _has(worker)
        for name, offer in worker.capabilities.services.items():
            rows.append((worker.id, name, _state(offer), offer.slots, _models(offer), has))
    return table(("worker", "service", "state", "slots", "models", "machine"), rows) if rows else ""


def _state(offer: ServiceOffer) -> str:
    return "ready" if offer.withdrawn is None else f"withdrawn: {offer.withdrawn}"


def _models(offer: ServiceOffer) -> str:
    return "" if offer.models is None else str(len(offer.models))


def _has(worker: WorkerView) -> str:
    resources = worker.capabilities.resources
    parts = [f"{resources['gpu_count']} GPU"] if resources.get("gpu_count") else []
    if model := resources.get("gpu_model"):
        parts.append(str(model))
    if is_finite(memory := resources.get("gpu_memory_mb")) and memory:
        parts.append(f"{int(memory) // 1024} GB")
    if cores := resources.get("cpu_cores"):
        parts.append(f"{cores} cores")
    return ", ".join(parts)
