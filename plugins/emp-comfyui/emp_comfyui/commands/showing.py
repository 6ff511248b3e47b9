"""The servers as people see them."""

import sys
from typing import Any

import anyio

from emp_comfyui.commands.looking import Look, Seen, look
from emp_core.cli.output import clean, emit, table
from emp_core.cli.showing import size_text
from emp_core.config import Settings
from emp_core.endpoints.endpoint import Reading

__all__ = ["listing", "watch_servers"]

_COLUMNS = ("server", "address", "state", "priority", "running", "waiting", "runs now", "gpu memory")
_AGAIN_S = 2.0


def listing(found: Look) -> str:
    """A line for each server, and what is wrong with those that get no jobs."""
    lines = [table(_COLUMNS, [_row(found, seen) for seen in found.servers])]
    lines += [f"{clean(seen.server.name)}: {clean(seen.state.reason)}" for seen in found.servers if _has_trouble(seen)]
    return "\n".join(lines)


async def watch_servers(settings: Settings, as_json: bool) -> None:
    """Show them until cancelled: on a terminal in one place, elsewhere one look after the other."""
    if as_json or not sys.stdout.isatty():
        while True:
            found = await look(settings)
            emit(found.as_dict(), listing(found), as_json=as_json)
            await anyio.sleep(_AGAIN_S)
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(_drawn(await look(settings)), refresh=True)
            await anyio.sleep(_AGAIN_S)


def _drawn(found: Look) -> Any:
    from rich.text import Text

    return Text.from_ansi(listing(found))


def _row(found: Look, seen: Seen) -> tuple[Any, ...]:
    server, reading = seen.server, seen.state.reading
    said: tuple[Any, ...] = (None,) * 4
    if seen.answered:
        jobs = ", ".join(_named(found, prompt_id) for prompt_id in seen.prompts)
        said = (reading.running, reading.pending, jobs, _memory(reading))
    return (server.name, server.url, seen.status, server.priority, *said)


def _named(found: Look, prompt_id: str) -> str:
    job = found.jobs.get(prompt_id)
    return f"prompt {prompt_id}" if job is None else f"{job.id} {job.progress:.0f}%"


def _memory(reading: Reading) -> str:
    """Free of all, over all its GPUs."""
    free, total = reading.memory_free_bytes, reading.memory_total_bytes
    return "no GPU" if free is None or total is None else f"{size_text(free)} of {size_text(total)} free"


def _has_trouble(seen: Seen) -> bool:
    return seen.server.enabled and seen.state.reason is not None
