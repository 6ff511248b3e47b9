"""How an installation is shown: a bar for each step on a terminal, a line for each event otherwise."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from emp_core.cli.output import clean, note
from emp_core.services.installer import InstallEvent, InstallEventKind
from emp_machine.installing.run import Tell

__all__ = ["told_on_terminal"]

_WORDS = {
    InstallEventKind.SKIPPED: "was done before",
    InstallEventKind.BEGUN: "begins",
    InstallEventKind.DONE: "is done",
}


@contextmanager
def told_on_terminal(*, quiet: bool) -> Iterator[Tell]:
    """What to pass to `install_services`; writes to stderr.

    Args:
        quiet: show nothing: the result is a document for programs.
    """
    if quiet:
        yield lambda _service, _event: None
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _line


def _line(service: str, event: InstallEvent) -> None:
    if event.kind in _WORDS:
        note(f"{clean(service)}: {clean(event.step)} {_WORDS[event.kind]}")
    elif event.kind is InstallEventKind.VERIFIED:
        note(f"{clean(service)}: answers")


def _bars() -> Iterator[Tell]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        tasks: dict[tuple[str, str], TaskID] = {}

        def tell(service: str, event: InstallEvent) -> None:
            key = (service, event.step)
            if event.kind in (InstallEventKind.BEGUN, InstallEventKind.SKIPPED):
                shown = escape(f"{clean(service)}: {clean(event.step)}")
                tasks[key] = progress.add_task(shown, total=None, said="")
            task = tasks.get(key)
            if task is None:
                return
            if event.kind is InstallEventKind.PROGRESS and event.fraction is not None:
                progress.update(task, total=1.0, completed=event.fraction, said=escape(clean(event.text)[:60]))
            elif event.kind is InstallEventKind.LOG:
                progress.update(task, said=escape(clean(event.text)[:60]))
            elif event.kind in (InstallEventKind.DONE, InstallEventKind.SKIPPED):
                progress.update(task, total=1.0, completed=1.0, said=_WORDS[event.kind])

        yield tell
