"""``supervisord.conf`` for supervisor (http://supervisord.org/configuration.html)."""

import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from emp_machine.plan.model import MachinePlan, Process
from emp_machine.processes import begin
from emp_machine.render.files import RenderedFile

__all__ = ["render"]

_COMMENT = re.compile(r"\s[;#]")


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:
    """The configuration, and for a process with texts that it cannot hold a file with its order.

    Services and workers start in their order; supervisor does not wait for a service to work, and workers wait themselves.
    """
    folder = folder.absolute()
    orders = {process.name: _order(process) for process in plan.processes if not _can_hold(process)}
    programs = [_program(process, number, folder, orders) for number, process in enumerate(plan.processes)]
    return (
        RenderedFile(Path("supervisord.conf"), "\n".join([_head(folder), *programs]), private=True),
        *orders.values(),
    )


def _head(folder: Path) -> str:
    return f"""\
[supervisord]
directory={_plain(folder)}
logfile={_plain(folder / "supervisord.log")}
pidfile={_plain(folder / "supervisord.pid")}
childlogdir={_plain(folder)}
umask=077

[unix_http_server]
file={_plain(folder / "supervisor.sock")}
chmod=0700

[supervisorctl]
serverurl=unix://{_plain(folder / "supervisor.sock")}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def _program(process: Process, number: int, folder: Path, orders: Mapping[str, RenderedFile]) -> str:
    argv, environ = process.argv, process.environ
    if process.name in orders:
        argv = (sys.executable, "-I", "-S", begin.__file__, str(folder / orders[process.name].path))
        environ = {}
    return f"""\
[program:{process.name}]
command={_plain(shlex.join(argv))}
directory={_plain(process.cwd)}
environment={",".join(f"{name}={_plain(_quoted(value))}" for name, value in sorted(environ.items()))}
priority={number}
autostart=true
autorestart=true
startsecs=1
startretries=10
stopsignal=TERM
stopwaitsecs={math.ceil(process.stop_s)}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(process.log)}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


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
