"""`emp jobs explain` and `attempts`: why a job is where it is, and what each of its attempts took."""

from collections.abc import Sequence

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, table
from emp_core.queue.attempts import AttemptRecord
from emp_core.queue.explain import Explanation, WorkerVerdict

__all__ = ["attempts", "explain"]


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def explain(job_id: str, as_json: bool) -> int:
    """Say why a job is where it is: what it waits for, its place, and what each live worker says to it.

    \b
    Examples:
      emp jobs explain 01M7Y3SW00C16K7V193XFACAW2
    """

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            found = await queue.explain(job_id)
        emit(found.as_dict(), lambda: _explained(found), as_json=as_json)
        return DONE

    return run_async(run)


def _explained(found: Explanation) -> str:
    lines = [f"{found.status.value}: {clean(found.summary)}"]
    if found.position is not None:
        lines.append(f"Place      {'at least ' if found.position_is_least else ''}{found.position}")
    if found.estimate_s is not None:
        lines.append(f"Begins in  about {found.estimate_s:.0f} s ({clean(found.basis or '')})")
    lines += (f"Worker     {clean(one.worker_id)}: {_verdict(one)}" for one in found.workers)
    return "\n".join(lines)


def _verdict(one: WorkerVerdict) -> str:
    if not one.can_run:
        return clean("; ".join(one.reasons))
    ready = f", ready for it after about {one.penalty_ms / 1000:.0f} s" if one.penalty_ms else ""
    return f"can run it, {one.busy} of {one.slots} slots busy{ready}"


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def attempts(job_id: str, as_json: bool) -> int:
    """List what each attempt of a job took, and how it ended.

    A dash is what nobody told: loading and cache hits come from the connector, the GPU's figures from its driver.

    \b
    Examples:
      emp jobs attempts 01M7Y3SW00C16K7V193XFACAW2
      emp jobs attempts 01M7Y3SW00C16K7V193XFACAW2 --json | jq '.data[].ran_ms'
    """

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            found = await queue.attempts(job_id)
        emit([one.as_dict() for one in found], lambda: _listing(found), as_json=as_json)
        return DONE

    return run_async(run)


_COLUMNS = (
    "attempt",
    "outcome",
    "worker",
    "began",
    "waited",
    "loading",
    "ran",
    "gpu memory",
    "gpu use",
    "cached",
    "error",
)


def _listing(found: Sequence[AttemptRecord]) -> str:
    rows = [
        (
            one.number,
            one.outcome or "runs",
            one.worker_id,
            f"{one.began_at.astimezone():%Y-%m-%d %H:%M:%S}",
            _seconds(one.waited_ms),
            _seconds(one.loading_ms),
            _seconds(one.ran_ms),
            _told(one.gpu_memory_mb, " MB"),
            _told(one.gpu_utilization, " %"),
            _told(one.cache_hits),
            f"{one.error.get('code')}: {one.error.get('message')}" if one.error else "",
        )
        for one in found
    ]
    return table(_COLUMNS, rows) if rows else ""


def _seconds(ms: float | None) -> str:
    return "-" if ms is None else f"{ms / 1000:.3f} s"


def _told(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:g}{unit}"
