"""``supervisord.conf`` for supervisor (http://supervisord.org/configuration.html)."""

import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from emp_machine.plan.model import MachinePlan, Process
from emp_machine.processes import begin
from emp_machine.render.files import RenderedFile

__all__ = ["render", "supervisor_head", "supervisor_program"]

_COMMENT = re.compile(r"\s[;#]")


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:
    """The configuration, and for a process with texts that it cannot hold a file with its order.

    Services and workers start in their order; supervisor does not wait for a service to work, and workers wait themselves.
    """
    folder = folder.absolute()
    orders = {process.name: _order(process) for process in plan.processes if not _can_hold(process)}
    programs = [
        supervisor_program(_begun(process, folder, orders), priority=number)
        for number, process in enumerate(plan.processes)
    ]
    head = supervisor_head(folder, folder / "supervisor.sock")
    return (
        RenderedFile(Path("supervisord.conf"), "\n".join([head, *programs]), private=True),
        *orders.values(),
    )


def supervisor_head(folder: Path, socket: Path) -> str:
    """The sections about supervisor itself.

    Args:
        folder: where it keeps its log and its pid.
        socket: where it listens, for this user alone.
    """
    return f"""\
[supervisord]
directory={_plain(folder)}
logfile={_plain(folder / "supervisord.log")}
logfile_maxbytes=1MB
logfile_backups=1
pidfile={_plain(folder / "supervisord.pid")}
childlogdir={_plain(folder)}

[unix_http_server]
file={_plain(socket)}
chmod=0700

[supervisorctl]
serverurl=unix://{_plain(socket)}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def supervisor_program(process: Process, *, priority: int = 999, autostart: bool = True, startretries: int = 10) -> str:
    """The section of a process. What ends by itself is started again; SIGTERM and SIGKILL go to its children, too.

    Args:
        process: with texts that supervisor can hold.
        autostart: whether it starts with supervisor.
        startretries: how often it is tried again when it ends within a second.
    """
    environ = ",".join(f"{name}={_plain(_quoted(value))}" for name, value in sorted(process.environ.items()))
    return f"""\
[program:{process.name}]
command={_plain(shlex.join(process.argv))}
directory={_plain(process.cwd)}
environment={environ}
priority={priority}
autostart={"true" if autostart else "false"}
autorestart=true
startsecs=1
startretries={startretries}
stopsignal=TERM
stopwaitsecs={math.ceil(process.stop_s)}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(process.log)}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def _begun(process: Process, folder: Path, orders: Mapping[str, RenderedFile]) -> Process:
    """The process, begun by its order if it has one."""
    if process.name not in orders:
        return process
    order = folder / orders[process.name].path
    return evolve(process, argv=(sys.executable, "-I", "-S", begin.__file__, str(order)), environ={})


def _order(process: Process) -> RenderedFile:
    text = json.dumps({"argv": list(process.argv), "environ": dict(process.environ)}, indent=2)
    return RenderedFile(Path("orders") / f"{process.name}.json", f"{text}\n", private=True)


def _can_hold(process: Process) -> bool:
    """Whether supervisor reads these texts as they are: it has no escapes between quotes, and comments within lines."""
    texts = (*process.argv, *process.environ.values(), str(process.cwd), str(process.log))
    if any(_COMMENT.search(text) or "\n" in text or "\r" in text for text in texts):
        return False
    return not any(
        {"'", '"'} <= set(value) or value[:1] in ("'", '"') or value[-1:] in ("'", '"')
        for value in process.environ.values()
    )


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def _plain(text: object) -> str:
    """``%`` is how supervisor refers to other values."""
    return str(text).replace("%", "%%")
