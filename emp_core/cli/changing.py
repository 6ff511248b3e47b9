"""`emp jobs cancel`, `retry` and `priority`: changing jobs; and what other commands change one by one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from emp_core.cli import failures
from emp_core.cli.failures import DONE
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, emit_failure, json_option, note
from emp_core.errors import QueueError, QueueUnavailable
from emp_core.jobs.codec import as_shown
from emp_core.jobs.model import Job
from emp_core.queue.queue import JobQueue

__all__ = ["cancel", "change_each", "priority", "retry"]

T = TypeVar("T")

_RETRIED_MOST = 1000


@click.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", default="", help="Why; it is kept in the job's events.")
@json_option
def cancel(job_ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Cancel jobs: at once while they wait; where they run, their workers are asked to stop them.

    With --json: the jobs that were cancelled, or are to be.

    \b
    Examples:
      emp jobs cancel 01M7Y3SW00C16K7V193XFACAW2 --reason "wrong prompt"
    """
    return _change(job_ids, lambda queue, job_id: queue.cancel(job_id, reason=reason), as_json)


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("number", type=click.IntRange(0, 100), metavar="N")
@json_option
def priority(job_id: str, number: int, as_json: bool) -> int:
    """Change the priority of a job that waits: 0 to 100, more is sooner.

    The job takes the place that it would have had with this priority from the beginning. With --json: the job, in a list.

    \b
    Examples:
      emp jobs priority 01M7Y3SW00C16K7V193XFACAW2 80
    """
    return _change([job_id], lambda queue, one: queue.set_priority(one, number), as_json)


def _label(_context: click.Context, _parameter: click.Parameter, given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"expected NAME=VALUE, not {given!r}")
    return name, value


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[ID...]")
@click.option("--failed", is_flag=True, help="Failed jobs, the newest first, instead of IDs.")
@click.option("--service", metavar="NAME", help="With --failed: only jobs for this service.")
@click.option("--code", metavar="CODE", help="With --failed: only jobs whose error has this code.")
@click.option("--label", callback=_label, metavar="K=V", help="With --failed: only jobs with this label.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help=f"With --failed: at most so many; {_RETRIED_MOST} when not given.",
)
@json_option
def retry(
    job_ids: tuple[str, ...],
    failed: bool,
    service: str | None,
    code: str | None,
    label: tuple[str, str] | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Run failed and cancelled jobs again, with their attempts counted from zero and no worker avoided.

    With --json: the jobs that run again.

    \b
    Examples:
      emp jobs retry 01M7Y3SW00C16K7V193XFACAW2
      emp jobs retry --failed --service comfyui --code out_of_memory
      emp jobs retry --failed --label team=art
    """
    if failed and job_ids:
        raise click.UsageError("give IDs, or --failed with what the jobs must have in common")
    if not failed and not job_ids:
        raise click.UsageError("no job is named: give IDs, or --failed")
    if not failed and (service, code, label, limit) != (None, None, None, None):
        raise click.UsageError("--service, --code, --label and --limit choose among failed jobs: add --failed")
    if not failed:
        return _change(job_ids, lambda queue, job_id: queue.retry(job_id), as_json)

    async def run() -> list[Job]:
        async with open_queue(prepared(), only_look=True) as queue:
            return await queue.retry_failed(service=service, code=code, label=label, limit=limit or _RETRIED_MOST)

    retried = run_async(run)
    emit([as_shown(job) for job in retried], lambda: "\n".join(map(_line, retried)), as_json=as_json)
    if not as_json:
        count = len(retried)
        note(f"{count} job{' runs' if count == 1 else 's run'} again" if retried else "no failed job fits")
    return DONE


def _change(job_ids: Sequence[str], change: Callable[[JobQueue, str], Awaitable[Job]], as_json: bool) -> int:
    return change_each(job_ids, change, as_shown, _line, as_json=as_json)


def change_each(
    names: Sequence[str],
    change: Callable[[JobQueue, str], Awaitable[T]],
    shown: Callable[[T], dict[str, Any]],
    line: Callable[[T], str],
    *,
    as_json: bool,
) -> int:
    """Change each of these. One that refuses does not keep the others from it.

    Args:
        shown, line: what is changed, for ``--json`` and for people.
    """
    changed: list[T] = []
    refused: list[Exception] = []

    async def run() -> None:
        async with open_queue(prepared(), only_look=True) as queue:
            for name in names:
                try:
                    changed.append(await change(queue, name))
                except QueueUnavailable:
                    raise
                except QueueError as error:
                    refused.append(error)

    run_async(run)
    data, text = [shown(one) for one in changed], "\n".join(map(line, changed))
    if not refused:
        emit(data, text, as_json=as_json)
        return DONE
    failure = failures.explain(ExceptionGroup("refused", refused))
    if as_json:
        emit_failure(failure.error, data)
    else:
        emit(data, text, as_json=False)
        failure.tell(as_json=False)
    return failure.exit_code


def _line(job: Job) -> str:
    return f"{clean(job.id)}  {_state_of(job)}"


def _state_of(job: Job) -> str:
    if job.cancel_requested and not job.status.is_final:
        return f"{job.status.value}, its worker was asked to stop it"
    return job.status.value
