"""Units for systemd, to be linked into a user's manager, or the system's."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from emp_machine.plan.model import MachinePlan, Process, ProcessKind
from emp_machine.render.env import process_env
from emp_machine.render.files import RenderedFile

__all__ = ["TARGET", "render"]

TARGET = "emp-machine.target"
"""The unit that all others belong to: started and stopped with it."""

_WORKER_ENDS = "RestartPreventExitStatus=2\n"
"""Its settings are wrong: starting it again does not help."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,=-]+")


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:
    """A unit for each process, a file with its variables, and one target for all."""
    folder = folder.absolute()
    return (
        RenderedFile(Path(TARGET), _target(plan)),
        *(RenderedFile(Path(_unit_name(one.name)), _unit(one, folder)) for one in plan.processes),
        *(process_env(one) for one in plan.processes),
    )


def _unit_name(process: str) -> str:
    return f"emp-{process}.service"


def _target(plan: MachinePlan) -> str:
    wanted = " ".join(_unit_name(one.name) for one in plan.processes)
    return f"""\
[Unit]
Description=Services and workers of emp-machine
Wants={wanted}

[Install]
WantedBy=default.target
"""


def _unit(process: Process, folder: Path) -> str:
    needs = " ".join(map(_unit_name, process.needs))
    after = f"Wants={needs}\nAfter={needs}\n" if needs else ""
    return f"""\
[Unit]
Description={_about(process)}
PartOf={TARGET}
{after}StartLimitIntervalSec=600
StartLimitBurst=20

[Service]
Type=exec
WorkingDirectory={_path(process.cwd)}
EnvironmentFile={_path(folder / process_env(process).path)}
ExecStart={_command(process.argv)}
Restart=always
RestartSec=5
{_WORKER_ENDS if process.kind is ProcessKind.WORKER else ""}\
KillMode=mixed
TimeoutStopSec={math.ceil(process.stop_s)}
StandardOutput=append:{_path(process.log)}
StandardError=inherit
UMask=0077
NoNewPrivileges=true

[Install]
WantedBy={TARGET}
"""


def _about(process: Process) -> str:
    what = process.service if process.kind is ProcessKind.SERVICE else f"worker of {process.worker_type}"
    where = "" if process.gpu is None else f" on GPU {process.gpu}"
    return f"{what}{where} ({process.name})".replace("%", "%%")


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _command(argv: Sequence[str]) -> str:
    """Words as ``ExecStart`` reads them (systemd.service(5), "Command lines")."""
    return " ".join(map(_word, argv))


def _word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    escaped = (
        word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'
