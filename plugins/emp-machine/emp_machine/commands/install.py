"""`emp machine install`: the services of this machine's plan."""

from pathlib import Path
from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option
from emp_core.plugins.manager import load_plugins
from emp_machine.commands.options import env_file_option
from emp_machine.commands.telling import told_on_terminal
from emp_machine.installing.run import dry_run_services, install_services, installed_file
from emp_machine.plan.here import plan_here
from emp_machine.plan.model import MachinePlan
from emp_machine.steps.records import read_record

__all__ = ["install"]


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--dry-run", is_flag=True, help="Print every command that would be run, and do nothing.")
@env_file_option
@json_option
def install(services: tuple[str, ...], dry_run: bool, env_file: Path | None, as_json: bool) -> int:
    """Install the services that WORKERS needs, or only those that are named, from wherever the last time ended.

    It may be interrupted or killed at any moment; the next one goes on there. What is done is not done again. Each service
    has a log, `logs/install-NAME.log` in the machine's folder, and `installed.json` beside it tells of everything that was
    fetched which version, commit or checksum it has.

    \b
    Examples:
      WORKERS=comfyui,ollama emp machine install
      emp machine install comfyui --env-file box.env
      WORKERS=comfyui emp machine install --dry-run
    """
    made, plugins = plan_here(env_file), load_plugins()
    if dry_run:
        lines = list(dry_run_services(made, plugins, only=services))
        emit({"lines": lines}, "\n".join(lines), as_json=as_json)
        return DONE

    async def body() -> None:
        with told_on_terminal(quiet=as_json) as tell:
            await install_services(made, plugins, tell, only=services)

    run_async(body)
    chosen = _installed(made, services)
    emit(chosen, lambda: _text(chosen), as_json=as_json)
    return DONE


def _installed(made: MachinePlan, services: tuple[str, ...]) -> dict[str, Any]:
    record = read_record(installed_file(made.root))
    wanted = services or tuple(one.name for one in made.services if one.installer is not None)
    return {name: {key: record.get(name, {}).get(key) for key in ("verified_at", "fetched")} for name in wanted}


def _text(installed: dict[str, Any]) -> str:
    if not installed:
        return "Nothing is installed on this machine: its services run elsewhere."
    return "\n".join(f"{clean(name)} is installed, and answers." for name in installed)
