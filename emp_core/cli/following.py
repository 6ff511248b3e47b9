"""Following a job: a progress bar on a terminal, plain lines otherwise; both on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from emp_core.cli.failures import WaitTimeout
from emp_core.cli.output import clean, note
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue

__all__ = ["event_line", "follow"]

_LINE_EVERY_S = 1.0
"""How often progress makes a plain line: a log of thousands of steps helps nobody."""


async def follow(queue: JobQueue, job_id: str, *, limit_s: float | None = None, silent: bool = False) -> Job:
    """The job once it is done; what happens to it is shown on the way.

    Args:
        limit_s: how long to wait.
        silent: show nothing where there is no terminal.

    Raises:
        JobNotFound: there is no such job.
        WaitTimeout: it was not done in time; it goes on.
    """
    job = await queue.get(job_id, payload=False)
    try:
        with anyio.fail_after(limit_s), _view(job, silent) as view:
            hinted = False
            async for event in queue.events(job_id):
                view.show(event)
                if event.name == "unserved" and not hinted:
                    hinted = True
                    note(_unserved_hint(job_id))
    except TimeoutError as error:
        raise WaitTimeout(
            f"job {job_id} was not done within {limit_s:g} s; it goes on",
            hint=f"`emp jobs wait {job_id}` waits on, `emp jobs cancel {job_id}` cancels it",
            details={"job_id": job_id},
        ) from error
    return await queue.get(job_id)


def _unserved_hint(job_id: str) -> str:
    return (
        f"No live worker can run this job now; it waits until one can. `emp jobs explain {job_id}` says why, "
        f"`emp jobs cancel {job_id}` takes it back, and --wait-timeout limits the wait."
    )


class _View(Protocol):
    def show(self, event: JobEvent) -> None: ...


@contextmanager
def _view(job: Job, silent: bool) -> Iterator[_View]:
    if sys.stderr.isatty():
        with _bar(job) as bar:
            yield bar
    else:
        yield _Silence() if silent else _Lines()


class _Silence:
    def show(self, event: JobEvent) -> None:
        pass


class _Lines:
    """A line for everything that happens, and for progress now and then."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def show(self, event: JobEvent) -> None:
        if event.name == "text":
            return  # the result has all of it
        if event.name == "progress":
            now = event.at.timestamp()
            if now - self._last < _LINE_EVERY_S:
                return
            self._last = now
        note(event_line(event))


class _Bar:
    """A progress bar of rich. Imported late: what runs without a terminal does not need it."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task
        self._line = ""

    def show(self, event: JobEvent) -> None:
        data = event.data
        match event.name:
            case "progress":
                self._update(completed=float(data.get("progress", 0)), message=clean(data.get("message") or ""))
            case "claimed":
                again = f", attempt {data['attempt']}" if data.get("attempt", 1) != 1 else ""
                self._update(state="running", completed=0, message=f"on {clean(data.get('worker', ''))}{again}")
            case "completed":
                self._update(state="completed", completed=100, message="")
            case "text":
                self._say(str(event.data.get("text", "")))
            case "unserved":
                self._update(message="nobody serves it now")
            case "warned":
                self._update(message=clean(data.get("message") or ""))
            case _:
                state = event.status.value if event.status is not None else event.name
                self._update(state=_WAITING.get(state, state), message=_what_is_said(event))

    def _say(self, text: str) -> None:
        """Text that the job puts out, line by line above the bar; a line that is not whole yet is kept back."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._progress.console.print(clean(line), markup=False, highlight=False)

    def _update(self, *, state: str | None = None, completed: float | None = None, message: str | None = None) -> None:
        fields = {"state": state, "message": message}
        given = {name: value for name, value in fields.items() if value is not None}
        if state is not None:
            # Without a total the bar moves to and fro: nothing is known yet.
            self._progress.update(self._task, total=None if state in _WAITING.values() else 100)
        self._progress.update(self._task, completed=completed, **given)


_WAITING = {JobState.PENDING.value: "waiting", JobState.SCHEDULED.value: "waiting until later"}


@contextmanager
def _bar(job: Job) -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description} {task.fields[state]}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task(clean(job.service_required), total=None, state="waiting", message="")
        yield _Bar(progress, task)


def event_line(event: JobEvent) -> str:
    """An event in one line, for people."""
    return f"{event.at.astimezone():%H:%M:%S}  {_name(event)}  {_what_is_said(event)}".rstrip()


def _name(event: JobEvent) -> str:
    if event.name == "progress":
        return f"{float(event.data.get('progress', 0)):3.0f} %"
    return event.name.replace("_", " ")


def _what_is_said(event: JobEvent) -> str:
    data = event.data
    parts = [str(data["message"])] if data.get("message") else []
    if worker := data.get("worker"):
        parts.append(f"by {worker}")
    if (attempt := data.get("attempt")) and event.name != "completed":
        parts.append(f"attempt {attempt}")
    if (delay := data.get("delay_s")) is not None:
        parts.append(f"again in {float(delay):g} s")
    if isinstance(error := data.get("error"), dict):
        parts.append(f"{error.get('code')}: {error.get('message')}")
    if reason := data.get("reason"):
        parts.append(str(reason))
    if isinstance(reasons := data.get("reasons"), list):
        parts.append("; ".join(map(str, reasons)))
    return clean(", ".join(parts))
