"""`emp jobs`: look at jobs and wait for them; what else can be done to them has modules of its own."""

from collections.abc import Sequence

import anyio
import click

from emp_core.cli.changing import cancel, priority, retry
from emp_core.cli.explaining import attempts, explain
from emp_core.cli.failures import DONE, FAILED, WaitTimeout
from emp_core.cli.following import event_line, follow
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import emit, emit_failure, json_option, note, table
from emp_core.cli.showing import age, as_waited_for, emit_outcome, error_of, job_text
from emp_core.cli.times import SECONDS
from emp_core.cli.watching import watch_all
from emp_core.jobs.codec import as_shown
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue

__all__ = ["jobs"]

_ORDER = (
    JobState.ACTIVE,
    JobState.PENDING,
    JobState.SCHEDULED,
    JobState.FAILED,
    JobState.COMPLETED,
    JobState.CANCELLED,
)
"""What one looks for first stands first."""


@click.group()
def jobs() -> None:
    """Look at jobs, wait for them, cancel and retry them.

    \b
    Examples:
      emp jobs ls --state active --state pending
      emp jobs watch 01M7Y3SW00C16K7V193XFACAW2
      emp jobs show 01M7Y3SW00C16K7V193XFACAW2 --json
    """


@jobs.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in JobState]),
    help="Only jobs in this state; repeatable.",
)
@click.option("--service", help="Only jobs for this service.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@json_option
def ls(states: tuple[str, ...], service: str | None, limit: int, as_json: bool) -> int:
    """List jobs, the newest first within each state.

    With --json: {jobs, counts}; the jobs are without their payloads.

    \b
    Examples:
      emp jobs ls
      emp jobs ls --state failed --service comfyui --limit 10
      emp jobs ls --json | jq -r '.data.jobs[].id'
    """
    wanted = [state for state in _ORDER if not states or state.value in states]

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            found = await queue.jobs(wanted, limit=limit, service=service)
            counts = {state.value: count for state, count in (await queue.counts()).items()}
        data = {"jobs": [as_shown(job) for job in found], "counts": counts}
        emit(data, lambda: _listing(found), as_json=as_json)
        if not as_json:
            note(", ".join(f"{count} {state}" for state, count in counts.items()))
        return DONE

    return run_async(run)


def _listing(found: Sequence[Job]) -> str:
    rows = [
        (
            job.id,
            job.service_required,
            job.status.value,
            f"{job.progress:.0f}%",
            job.attempt,
            age(job.created_at),
            _said(job),
        )
        for job in found
    ]
    return table(("id", "service", "state", "progress", "attempt", "age", "what"), rows) if rows else ""


def _said(job: Job) -> str:
    if job.error is not None and job.status is not JobState.COMPLETED:
        return f"{job.error.code}: {job.error.message}"
    if job.unreadable:
        return f"not all of it can be read: {'; '.join(job.unreadable)}"
    if job.cancel_requested and not job.status.is_final:
        return "is being cancelled"
    if job.status is JobState.ACTIVE:
        return " ".join(part for part in (job.message, f"on {job.worker_id}") if part)
    return ""


@jobs.command()
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, as_json: bool) -> int:
    """Show everything that is known of a job.

    \b
    Examples:
      emp jobs show 01M7Y3SW00C16K7V193XFACAW2
      emp jobs show 01M7Y3SW00C16K7V193XFACAW2 --json | jq .data.result
    """

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            job = await queue.get(job_id)
        emit(as_shown(job), lambda: job_text(job), as_json=as_json)
        return DONE

    return run_async(run)


@jobs.command()
@click.argument("job_id", metavar="ID")
@json_option
def events(job_id: str, as_json: bool) -> int:
    """List what happened to a job, the oldest first.

    \b
    Examples:
      emp jobs events 01M7Y3SW00C16K7V193XFACAW2
    """

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            history = await queue.history(job_id)
        data = [event.as_dict() for event in history]
        emit(data, lambda: "\n".join(map(event_line, history)), as_json=as_json)
        return DONE

    return run_async(run)


@jobs.command()
@click.argument("job_id", required=False, metavar="[ID]")
@json_option
def watch(job_id: str | None, as_json: bool) -> int:
    """Follow a job to its end, or all jobs until Ctrl-C.

    With an ID, the exit code is that of the job: 0 completed, 1 failed or cancelled. With --json, one document per line: every
    event as it comes, and at last, for one job, the job.

    \b
    Examples:
      emp jobs watch 01M7Y3SW00C16K7V193XFACAW2
      emp jobs watch --json
    """

    async def run() -> int:
        async with open_queue(prepared(), only_look=True) as queue:
            if job_id is None:
                await watch_all(queue, as_json=as_json)
                return DONE
            if not as_json:
                return emit_outcome(await follow(queue, job_id), as_json=False)
            async for event in queue.events(job_id):
                emit(event.as_dict(), "", as_json=True)
            return emit_outcome(await queue.get(job_id), as_json=True)

    return run_async(run)


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--timeout", type=SECONDS, metavar="S", help="Wait at most so many seconds; the jobs go on.")
@json_option
def wait(job_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until jobs are done; exit 1 when one of them failed or was cancelled, or is not done in time.

    With --json: the jobs, in the order of the IDs.

    \b
    Examples:
      emp jobs wait 01M7Y3SW00C16K7V193XFACAW2
      emp jobs wait $(emp submit echo) $(emp submit echo) --timeout 60
    """

    async def run() -> int:
        async with open_queue(prepared()) as queue:
            if len(job_ids) == 1:
                found = [await follow(queue, job_ids[0], limit_s=timeout, silent=as_json)]
            else:
                found = await _wait_for_all(queue, job_ids, timeout, as_json)
        return _emit_waited(found, as_json)

    return run_async(run)


async def _wait_for_all(queue: JobQueue, job_ids: Sequence[str], limit_s: float | None, as_json: bool) -> list[Job]:
    done: dict[str, Job] = {}

    async def one(job_id: str) -> None:
        done[job_id] = await queue.wait(job_id)
        if not as_json:
            note(f"job {job_id} {done[job_id].status.value}")

    with anyio.move_on_after(limit_s):
        async with anyio.create_task_group() as group:
            for job_id in dict.fromkeys(job_ids):
                group.start_soon(one, job_id)
    if missing := [job_id for job_id in job_ids if job_id not in done]:
        raise WaitTimeout(
            f"{len(missing)} of {len(job_ids)} jobs were not done within {limit_s:g} s; they go on",
            hint=f"`emp jobs wait {missing[0]}` waits on",
            details={"job_ids": missing},
        )
    return [done[job_id] for job_id in job_ids]


def _emit_waited(found: Sequence[Job], as_json: bool) -> int:
    failed = [job for job in found if job.status is not JobState.COMPLETED]
    if not as_json:
        for job in found:
            emit_outcome(job, as_json=False)
    elif failed:
        emit_failure(error_of(failed[0]), [as_waited_for(job) for job in found])
    else:
        emit([as_waited_for(job) for job in found], "", as_json=True)
    return FAILED if failed else DONE


for command in (attempts, cancel, explain, priority, retry):
    jobs.add_command(command)
