"""supervisord.conf for processes that `SupervisorManager` drives."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from emp_machine.plan.model import Process

__all__ = ["supervisor_config"]


def supervisor_config(processes: Sequence[Process], *, folder: Path, socket: Path) -> str:
    """The configuration: nothing starts by itself, and what has ended by itself is started again.

    Args:
        folder: where supervisord keeps its log and its pid.
        socket: where it listens.
    """
    head = f"""\
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

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return "\n".join([head, *map(_program, processes)])


def _program(process: Process) -> str:
    return f"""\
[program:{process.name}]
command={_plain(shlex.join(process.argv))}
directory={_plain(process.cwd)}
autostart=false
autorestart=true
startsecs=1
startretries=1
stopsignal=TERM
stopwaitsecs={math.ceil(process.stop_s)}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={_plain(process.log)}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def _plain(text: object) -> str:
    return str(text).replace("%", "%%")
