"""What commands find of this machine's processes, and how they show it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from emp_core.cli.hub import prepared
from emp_core.cli.output import emit, note, table
from emp_core.config import Settings, environment, load_settings
from emp_machine.holding import Holder, holder
from emp_machine.plan.aliases import with_aliases
from emp_machine.plan.here import look_around
from emp_machine.processes.care import Verdict
from emp_machine.processes.choosing import open_manager
from emp_machine.processes.interface import ProcessManager, ProcessState, ProcessStatus
from emp_machine.processes.roster import Known, Roster, expanded, read_roster
from emp_machine.settings import MachineSettings, root_of
from emp_machine.speaking import read_verdicts

__all__ = ["Here", "find_here", "show"]

_WELL = frozenset({"well", ProcessState.RUNNING.value})
_COLUMNS = ("process", "state", "standing", "pid", "up", "restarts", "gpu", "endpoint", "reason")


@frozen
class Here:
    """The machine's folder, and what keeps its processes."""

    root: Path
    manager: ProcessManager
    settings: Settings

    @property
    def roster(self) -> Roster:
        """What was started here last."""
        return read_roster(self.root) or Roster(self.manager.kind)

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What `emp machine up` thinks of the processes; empty where none holds the machine."""
        return read_verdicts(self.root) if holder(self.root) is not None else {}

    def names(self, words: Sequence[str]) -> tuple[str, ...]:
        """The processes that are meant; empty: all."""
        return expanded(self.roster, words)


def find_here(env_file: Path | None) -> Here:
    """The machine that the environment speaks of.

    Raises:
        ConfigError: the environment, or the file of variables, cannot be used.
    """
    prepared()
    environ, _ = with_aliases(look_around(env_file).environ)
    settings, machine = Settings.from_env(environ), load_settings(MachineSettings, environ)
    root = root_of(settings, machine)
    wanted = machine.process_manager if read_roster(root) is None else "auto"  # else, what has them now
    return Here(root, open_manager(root, wanted, environment()), settings)


def show(here: Here, statuses: Sequence[ProcessStatus], *, as_json: bool) -> bool:
    """Print how processes are, and who watches them; gives whether there are any, and all of them are well."""
    known = {one.name: one for one in here.roster.processes}
    held = holder(here.root)
    verdicts = here.verdicts
    rows = [_facts(one, known[one.name], verdicts.get(one.name)) for one in statuses]
    data = {"manager": here.manager.kind if rows else None, "held_by": _held(held), "processes": rows}
    emit(data, lambda: _table(rows) if rows else "", as_json=as_json)
    if not as_json:
        _note_keepers(here, held, rows)
    return bool(rows) and all((row["standing"] or row["state"]) in _WELL for row in rows)


def _note_keepers(here: Here, held: Holder | None, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        note(f"Nothing runs in {here.root}. `emp machine up` starts everything.")
    elif held is None:
        note(f"Kept by {here.manager.kind}; no `emp machine up` watches them.")
    else:
        note(f"Kept by {here.manager.kind}; `emp machine up` watches them ({held}).")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    return table(_COLUMNS, [[row[key] for key in _COLUMNS] for row in map(_in_words, rows)])


def _facts(one: ProcessStatus, known: Known, verdict: Verdict | None) -> dict[str, Any]:
    judged: dict[str, Any] = {"standing": None} if verdict is None else verdict.as_dict()
    both = {**one.as_dict(), **judged}
    return {**both, "reason": judged.get("reason") or one.reason, "gpu": known.gpu, "endpoint": known.endpoint}


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    up_s = row["up_s"]
    return {**row, "process": row["name"], "up": None if up_s is None else _duration(up_s)}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def _held(held: Holder | None) -> dict[str, Any] | None:
    return None if held is None else {"pid": held.pid, "since": held.since}
