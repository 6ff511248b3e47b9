"""Who listens on the ports of this machine besides its own processes."""

from pathlib import Path

import psutil

from emp_machine.processes.remains import MARK

__all__ = ["strangers"]


def strangers(root: Path) -> dict[int, str]:
    """The ports that others listen on, each with who it is; what belongs to ``root`` is left out.

    Where the system does not tell (macOS, to anybody but root), it is empty.
    """
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return {}
    found: dict[int, str] = {}
    for one in sorted(connections, key=lambda one: one.pid or 0):
        if one.laddr and one.status == psutil.CONN_LISTEN and not (one.pid is not None and _is_ours(one.pid, root)):
            found[one.laddr.port] = _named(one.pid)
    return found


def _is_ours(pid: int, root: Path) -> bool:
    try:
        return psutil.Process(pid).environ().get(MARK, "").endswith(f"@{root}")
    except psutil.Error:
        return False


def _named(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"
