"""`emp machine up`: one command for a whole box."""

from pathlib import Path
from typing import Any

import anyio
import click

from emp_core.cli.hub import prepared
from emp_core.cli.output import clean, emit, json_option, note
from emp_core.cli.shutdown import Shutdown
from emp_core.config import Settings, environment, load_settings
from emp_core.plugins.manager import load_plugins
from emp_core.queue.addresses import shown_url
from emp_machine.commands.options import env_file_option, manager_option
from emp_machine.commands.telling import told_on_terminal
from emp_machine.plan.here import look_around, plan_here
from emp_machine.plan.model import MachinePlan, Process
from emp_machine.processes.choosing import open_manager
from emp_machine.processes.interface import ProcessManager
from emp_machine.settings import MachineSettings
from emp_machine.up import Machine

__all__ = ["up"]


@click.command()
@manager_option
@env_file_option
@json_option
def up(manager: str | None, env_file: Path | None, as_json: bool) -> int:
    """Hold this machine: plan, install, start and watch what WORKERS needs, until told to stop.

    Services start before their workers; what ends or does not answer is started again, and given up with a reason when that
    does not help. Killed at any moment, and started again, it goes on where it was: what is installed stays, and what runs is
    taken over. Without HUB_REDIS_URL the machine gets a Redis of its own.

    Ctrl-C or SIGTERM drains: workers let their jobs end (EMP_GRACE_S), then services end, and nothing is left running. A
    second one ends everything at once. With --json, one document tells when all is ready.

    \b
    Examples:
      WORKERS=comfyui,ollama emp machine up
      NUM_GPUS=2 GPU_MODE=mock WORKERS=comfyui emp machine up --manager supervisor
      emp machine up --env-file box.env --json
    """
    prepared(quiet=() if as_json else ("emp.machine",))
    plan = plan_here(env_file)
    settings = Settings.from_env(plan.environ)
    environ = look_around(env_file).environ
    wanted = manager or load_settings(MachineSettings, environ).process_manager
    kept_by = open_manager(plan.root, wanted, environment())
    shutdown = Shutdown(settings.grace_s)

    async def body() -> None:
        with told_on_terminal(quiet=as_json) as tell:
            machine = Machine(
                plan,
                load_plugins(),
                settings,
                kept_by,
                environ=environment(),
                tell=tell,
                note=(lambda _: None) if as_json else lambda line: note(clean(line)),
            )
            shutdown.look_after(machine)

            def ready() -> None:
                emit(_shown(machine, kept_by), lambda: _text(machine, kept_by), as_json=as_json)

            await machine.run(ready)

    return anyio.run(shutdown.run, body)


def _shown(machine: Machine, kept_by: ProcessManager) -> dict[str, Any]:
    return {
        "machine_id": machine.plan.machine_id,
        "root": machine.plan.root,
        "manager": kept_by.kind,
        "redis": {"url": shown_url(machine.plan.environ["HUB_REDIS_URL"])},
        "services": [_process(one, machine) for one in machine.plan.instances],
        "workers": [_process(one, machine) for one in machine.plan.workers],
        "notes": list(machine.plan.notes),
    }


def _process(one: Process, machine: Machine) -> dict[str, Any]:
    return {"name": one.name, "gpu": one.gpu, "endpoint": one.endpoint, **machine.verdicts[one.name].as_dict()}


def _text(machine: Machine, kept_by: ProcessManager) -> str:
    plan: MachinePlan = machine.plan
    lines = [
        f"Machine    {clean(plan.machine_id)}, kept by {kept_by.kind} in {plan.root}",
        f"Redis      {shown_url(plan.environ['HUB_REDIS_URL'])}",
        *(f"Service    {_line(one, machine)}" for one in plan.instances),
        *(f"Worker     {_line(one, machine)}" for one in plan.workers),
        "Ready. Ctrl-C ends it.",
    ]
    return "\n".join(lines)


def _line(one: Process, machine: Machine) -> str:
    verdict = machine.verdicts[one.name]
    where = f" at {one.endpoint}" if one.endpoint else ""
    return clean(f"{one.name}{where}: {verdict.standing.value}{f', {verdict.reason}' if verdict.reason else ''}")
