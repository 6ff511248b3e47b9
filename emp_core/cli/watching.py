"""`emp jobs watch` without a job: everything that happens, on a terminal as a table of what runs now."""

import json
import sys
from typing import Any

import anyio

from emp_core.cli.failures import explain
from emp_core.cli.following import event_line
from emp_core.cli.output import clean, emit, note
from emp_core.cli.showing import age
from emp_core.errors import QueueUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.connection import AWAY
from emp_core.queue.events import JobEvent, decode_event_fields
from emp_core.queue.queue import JobQueue

__all__ = ["watch_all"]

_BLOCK_MS = 2000
"""Well below the time after which a silent connection counts as dead."""
_AGAIN_S = 0.5
_ROWS_MAX = 20


async def watch_all(queue: JobQueue, *, as_json: bool) -> None:
    """Show what happens until interrupted."""
    if not as_json and sys.stdout.isatty():
        await _table(queue)
        return
    position = "$"
    while True:
        try:
            position, events = await _next(queue, position)
        except AWAY as error:
            note(f"Redis is away: {clean(error)}")
            await anyio.sleep(_AGAIN_S)
            continue
        for event in events:
            emit(event.as_dict(), f"{event.job_id}  {event_line(event)}", as_json=as_json)


async def _next(queue: JobQueue, position: str) -> tuple[str, list[JobEvent]]:
    """What came into the stream of all events after ``position``, and the new position."""
    stream = queue.keys.fixed("events")
    if position == "$":
        # Taken once: between two reads of "$" something could be missed.
        last = await queue.client.xrevrange(stream, count=1)
        position = last[0][0] if last else "0-0"
    reply = await queue.client.xread({stream: position}, block=_BLOCK_MS, count=1000)
    entries: list[tuple[str, dict[str, str]]] = reply[0][1] if reply else []
    events = [decode_event_fields(one) for _, fields in entries for one in json.loads(fields["events"])]
    return (entries[-1][0] if entries else position), events


async def _table(queue: JobQueue) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        while True:
            try:
                counts = await queue.counts()
                active = await queue.jobs([JobState.ACTIVE], limit=_ROWS_MAX)
            except QueueUnavailable as error:
                live.update("\n".join(explain(error).lines), refresh=True)
            else:
                live.update(_drawn(counts, active), refresh=True)
            await anyio.sleep(_AGAIN_S)


def _drawn(counts: dict[JobState, int], active: list[Job]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    running = Table("id", "service", "", "%", "age", "worker", "message", box=SIMPLE_HEAD, pad_edge=False)
    for job in active:
        running.add_row(
            job.id,
            clean(job.service_required),
            ProgressBar(total=100, completed=job.progress, width=20),
            f"{job.progress:.0f}",
            age(job.created_at),
            Text(clean(job.worker_id or "")),
            Text(clean(job.message or "")),
        )
    states = "  ".join(f"{state.value} {count}" for state, count in counts.items())
    return Group(Text(states), running if active else Text("nothing runs now"))
