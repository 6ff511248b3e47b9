"""`emp machine start|stop|restart|reload|status|logs`: the processes of this machine, whoever started them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import click
import httpx

from emp_core.cli.failures import DONE
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note
from emp_core.config import Settings, environment
from emp_core.queue.connection import connect
from emp_machine.commands.options import env_file_option
from emp_machine.commands.running import Here, find_here, show
from emp_machine.errors import MachineError
from emp_machine.holding import hold, holder
from emp_machine.plan.here import plan_here
from emp_machine.plan.redis import REDIS
from emp_machine.processes.choosing import end_other_managers
from emp_machine.processes.interface import ProcessManager, ProcessStatus
from emp_machine.processes.probing import Probe, all_probes
from emp_machine.processes.roster import Roster, expanded, known
from emp_machine.processes.watching import Watcher

__all__ = ["logs", "reload", "restart", "start", "status", "stop"]

_LOOK_S = 0.2
_LIVE_S = 30.0
names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")


@click.command()
@names_argument
@env_file_option
@json_option
def status(names: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """Show the processes of this machine: whether they run, how they stand, and why not.

    NAME is a process, a service for all its instances, or one of the words `services` and `workers`; without one, all.

    \b
    Examples:
      emp machine status
      emp machine status comfyui --json | jq '.data.processes[].standing'
    """
    here = find_here(env_file)
    show(here, run_async(here.manager.status, *here.names(names)), as_json=as_json)
    return DONE


@click.command()
@names_argument
@env_file_option
@json_option
def start(names: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """Start what does not run: services, then their workers when those answer.

    Where `emp machine up` holds the machine, it goes on watching them. Otherwise they are left to the process manager, which
    starts again what ends, and looks after nothing else. Nothing is installed.

    \b
    Examples:
      emp machine start worker-comfyui-gpu1
      WORKERS=comfyui emp machine start
    """
    here = find_here(env_file)

    async def run() -> tuple[ProcessStatus, ...]:
        if await here.manager.runs():
            await here.manager.start(*here.names(names))
        else:
            await _start_all(here, names, env_file)
        return await here.manager.status(*here.names(names))

    show(here, run_async(run), as_json=as_json)
    return DONE


async def _start_all(here: Here, words: Sequence[str], env_file: Path | None) -> None:
    """Start what nobody keeps yet, in its order, and leave it to the manager."""
    with hold(here.root):
        plan = plan_here(env_file)
        roster = Roster(here.manager.kind, tuple(known(one) for one in plan.processes))
        chosen = set(expanded(roster, words) or roster.names)
        for one in reversed(plan.processes):
            chosen |= set(one.needs) if one.name in chosen else set()
        await end_other_managers(here.manager, environment())
        await here.manager.apply(plan.processes)
        processes = [one for one in plan.processes if one.name in chosen]
        async with (
            _redis(plan.environ["HUB_REDIS_URL"], here.settings) as redis,
            httpx.AsyncClient(trust_env=False) as http,
            anyio.create_task_group() as group,
        ):
            watcher = Watcher(here.manager, processes, all_probes(processes, http, redis, here.settings))
            group.start_soon(watcher.run)
            await watcher.until(lambda: watcher.settled)
            group.cancel_scope.cancel()
        if watcher.hopeless:
            why = "; ".join(f"{name}: {one.reason}" for name, one in watcher.verdicts.items() if one.reason)
            raise MachineError(f"no worker runs: {why}", hint="`emp machine logs` shows what the processes said")


@click.command()
@names_argument
@env_file_option
@json_option
def stop(names: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """End processes: workers let their jobs end first, then services end. Without a name, all of them.

    They stay so until `emp machine start`. Where no `emp machine up` holds the machine, the process manager ends with the last.

    \b
    Examples:
      emp machine stop comfyui-gpu1
      emp machine stop workers
    """
    here = find_here(env_file)

    async def run() -> tuple[ProcessStatus, ...]:
        if not await here.manager.runs():
            return ()
        meant = here.names(names) or here.roster.names
        workers = [one.name for one in here.roster.processes if one.worker and one.name in meant]
        if workers:
            await here.manager.stop(*workers)
        if others := [name for name in meant if name not in workers]:
            await here.manager.stop(*others)
        if not names and holder(here.root) is None:
            await here.manager.shutdown()
        return await here.manager.status(*here.names(names))

    show(here, run_async(run), as_json=as_json)
    return DONE


@click.command()
@names_argument
@env_file_option
@json_option
def restart(names: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """End processes and start them again, side by side. See `emp machine reload` for one after another.

    \b
    Examples:
      emp machine restart comfyui
      emp machine restart worker-comfyui-gpu0
    """
    here = find_here(env_file)

    async def run() -> tuple[ProcessStatus, ...]:
        await here.manager.restart(*here.names(names))
        return await here.manager.status(*here.names(names))

    show(here, run_async(run), as_json=as_json)
    return DONE


@click.command()
@names_argument
@env_file_option
@json_option
def reload(names: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """Restart processes one after another, each when the one before works again, so that the machine goes on working.

    A worker lets its jobs end first. What does not work again in its time ends the reload there.

    \b
    Examples:
      emp machine reload workers
    """
    here = find_here(env_file)

    async def run() -> tuple[ProcessStatus, ...]:
        roster = here.roster
        url = here.settings.redis_url or _own_redis(roster)
        async with _redis(url, here.settings) as redis, httpx.AsyncClient(trust_env=False) as http:
            probes = all_probes(roster.processes, http, redis, here.settings)

            async def until_well(name: str) -> None:
                await _until_well(here.manager, name, probes.get(name))
                if not as_json:
                    note(f"{clean(name)} works again")

            await here.manager.reload(*here.names(names), until_well=until_well)
        return await here.manager.status(*here.names(names))

    show(here, run_async(run), as_json=as_json)
    return DONE


def _own_redis(roster: Roster) -> str:
    """The machine's own Redis, where HUB_REDIS_URL is not set."""
    [endpoint] = [one.endpoint for one in roster.processes if one.service == REDIS] or [None]
    return f"redis://{endpoint or '127.0.0.1:6379'}"


async def _until_well(manager: ProcessManager, name: str, probe: Probe | None) -> None:
    limit_s = _LIVE_S if probe is None else probe.start_s
    with anyio.move_on_after(limit_s):
        while True:
            [found] = await manager.status(name)
            if found.pid is not None and (probe is None or await probe.ask()):
                return
            await anyio.sleep(_LOOK_S)
    raise MachineError(
        f"{name} does not work again within {limit_s:g} s{'' if probe is None else f': {probe.problem}'}",
        hint=f"the rest was left as it is; `emp machine logs {name}` shows what it said",
    )


@asynccontextmanager
async def _redis(url: str, settings: Settings) -> AsyncIterator[Any]:
    client = connect(url, settings)
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await client.aclose()


@click.command()
@names_argument
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(0, 100_000), help="Lines of each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@env_file_option
@json_option
def logs(names: tuple[str, ...], lines: int, follow: bool, env_file: Path | None, as_json: bool) -> int:
    """Show the last lines of what processes have put out. With --json, a document for each line.

    \b
    Examples:
      emp machine logs comfyui -f
      emp machine logs worker-comfyui-gpu0 -n 200
    """
    here = find_here(env_file)
    wide = max((len(name) for name in here.roster.names), default=0)

    async def run() -> None:
        async for line in here.manager.logs(*here.names(names), lines=lines, follow=follow):
            shown = f"{clean(line.name):<{wide}}  {clean(line.text)}"
            emit({"name": line.name, "text": line.text}, shown, as_json=as_json)

    run_async(run)
    return DONE
