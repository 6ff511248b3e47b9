"""Which processes somebody has ended by hand, for whoever watches: what is restarted so did not end by itself."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from emp_machine.processes.folder import private, run_folder, write_private
from emp_machine.processes.interface import ProcessStatus

__all__ = ["ended_by_hand", "note_ended_by_hand"]

_FILE = "ended-by-hand.json"


def note_ended_by_hand(root: Path, processes: Iterable[ProcessStatus]) -> None:
    """Note, before they are ended, that these are ended by hand.

    Raises:
        MachineError: the machine's folder cannot be written.
    """
    ended = {one.name: one.pid for one in processes if one.pid is not None}
    if ended:
        write_private(private(run_folder(root)) / _FILE, json.dumps({**ended_by_hand(root), **ended}))


def ended_by_hand(root: Path) -> Mapping[str, int]:
    """The last process of each name that somebody has ended."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        said = json.loads((run_folder(root) / _FILE).read_text(encoding="utf-8"))
        return {str(name): int(pid) for name, pid in said.items()}
    return {}
