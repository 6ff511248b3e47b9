"""What a process manager was told last, for whoever drives it next: names, logs and manners, and no secrets."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cattrs
from attrs import frozen

from emp_core.errors import ConfigError
from emp_core.services.launch import HealthCheck
from emp_machine.errors import MachineError
from emp_machine.plan.model import Process, ProcessKind
from emp_machine.processes.folder import private, run_folder, write_private

__all__ = ["Known", "Roster", "expanded", "fingerprint", "known", "read_roster", "write_roster"]

_FILE = "processes.json"


@frozen
class Known:
    """A process that a manager knows, without its variables.

    Attributes:
        health: how to find out whether it works; None: that it lives is enough.
        worker: of a worker, its name in Redis: ``WORKER_ID@MACHINE_ID``; of an instance, empty.
        fingerprint: of all that the process is started with: another one is another process.
    """

    name: str
    kind: ProcessKind
    log: Path
    stop_s: float
    fingerprint: str
    service: str = ""
    worker_type: str = ""
    gpu: int | None = None
    worker: str = ""
    endpoint: str | None = None
    needs: tuple[str, ...] = ()
    health: HealthCheck | None = None


@frozen
class Roster:
    """The processes that a manager knows, in the order of their plan.

    Attributes:
        manager: the kind of the manager.
        machine_id: the machine's name.
    """

    manager: str
    processes: tuple[Known, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(one.name for one in self.processes)

    def named(self, names: Sequence[str]) -> tuple[Known, ...]:
        """Those of these names, in the roster's order; all where no name is given.

        Raises:
            ConfigError: there is none of such a name.
        """
        strangers = [name for name in names if name not in self.names]
        if strangers:
            raise ConfigError(
                f"there is no process {', '.join(map(repr, strangers))} on this machine",
                hint=f"there are: {', '.join(self.names) or 'none'}",
            )
        return tuple(one for one in self.processes if not names or one.name in names)


def expanded(roster: Roster, words: Sequence[str]) -> tuple[str, ...]:
    """The names of the processes that words stand for: a name itself, a service for its instances, ``services``, ``workers``.

    Raises:
        ConfigError: a word stands for none.
    """
    found: set[str] = set()
    strangers: list[str] = []
    for word in words:
        meant = {one.name for one in roster.processes if word in (one.name, one.service, f"{one.kind.value}s")}
        found |= meant
        strangers += [] if meant else [word]
    if strangers:
        services = {one.service: None for one in roster.processes if one.service not in ("", *roster.names)}
        there = ", ".join((*roster.names, *services, "services", "workers"))
        raise ConfigError(
            f"there is no process {', '.join(map(repr, strangers))} on this machine",
            hint=f"there are: {there}" if roster.processes else "nothing was started here yet: `emp machine up` does",
        )
    return tuple(name for name in roster.names if name in found)


def known(process: Process) -> Known:
    """A process as a roster has it."""
    return Known(
        name=process.name,
        kind=process.kind,
        log=process.log,
        stop_s=process.stop_s,
        fingerprint=fingerprint(process),
        service=process.service,
        worker_type=process.worker_type,
        worker=_worker(process),
        gpu=process.gpu,
        endpoint=process.endpoint,
        needs=process.needs,
        health=process.health,
    )


def _worker(process: Process) -> str:
    if process.kind is not ProcessKind.WORKER:
        return ""
    return f"{process.environ.get('WORKER_ID', '')}@{process.environ.get('MACHINE_ID', '')}"


def fingerprint(process: Process) -> str:
    """Tells whether a process is started otherwise than before."""
    started_with = [
        list(process.argv),
        str(process.cwd),
        str(process.log),
        dict(process.environ),
        process.stop_s,
    ]
    return hashlib.sha256(json.dumps(started_with, sort_keys=True).encode()).hexdigest()[:16]


def read_roster(root: Path) -> Roster | None:
    """The roster of a machine's folder; None before anything was started there.

    Raises:
        MachineError: it cannot be read.
    """
    path = run_folder(root) / _FILE
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        return _converter.structure(document, Roster)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        raise MachineError(
            f"{path} cannot be read: {error}", hint="remove it, if nothing of this machine runs any more"
        ) from error


def write_roster(root: Path, manager: str, processes: Sequence[Process]) -> Roster:
    """Note what a manager is told, before it is told: so that whatever it starts can be found again."""
    roster = Roster(manager, tuple(known(one) for one in processes))
    write_private(private(run_folder(root)) / _FILE, json.dumps(_converter.unstructure(roster), indent=1))
    return roster


_converter = cattrs.Converter()
_converter.register_unstructure_hook(Path, str)
_converter.register_structure_hook(Path, lambda value, _: Path(value))
