"""`emp machine start|stop|restart|reload|status|logs`: the processes of this machine, whoever started them."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click

from emp_core.cli.failures import DONE, FAILED
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note
from emp_machine.commands import driving
from emp_machine.commands.options import env_file_option
from emp_machine.commands.running import Here, find_here, show
from emp_machine.processes.interface import ProcessStatus

__all__ = ["logs", "reload", "restart", "start", "status", "stop"]

names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")


def _shown_after(here: Here, names: Sequence[str], drive: Callable[[], Awaitable[None]], *, as_json: bool) -> int:
    """Do something to processes, and show how they are then."""

    async def run() -> tuple[ProcessStatus, ...]:
        await drive()
        return await here.manager.status(*here.names(names))

    show(here, run_async(run), as_json=as_json)
    return DONE


@click.command()
@names_argument
@click.option("--check", is_flag=True, help="End with 1 unless all of them are well: for health checks of containers.")
@env_file_option
@json_option
def status(names: tuple[str, ...], check: bool, env_file: Path | None, as_json: bool) -> int:
    """Show the processes of this machine: whether they run, how they stand, and why not.

    NAME is a process, a service for all its instances, or one of the words `services` and `workers`; without one, all.

    \b
    Examples:
      emp machine status
      emp machine status comfyui --json | jq '.data.processes[].standing'
      emp machine status --check || echo "something is wrong"
    """
    here = find_here(env_file)
    well = show(here, run_async(here.manager.status, *here.names(names)), as_json=as_json)
    return FAILED if check and not well else DONE


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

    return _shown_after(here, names, lambda: driving.start(here, names, env_file), as_json=as_json)


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

    return _shown_after(here, names, lambda: driving.stop(here, names), as_json=as_json)


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

    return _shown_after(here, names, lambda: driving.restart(here, names), as_json=as_json)


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

    def tell(name: str) -> None:
        if not as_json:
            note(f"{clean(name)} works again")

    return _shown_after(here, names, lambda: driving.reload(here, here.names(names), tell), as_json=as_json)


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
