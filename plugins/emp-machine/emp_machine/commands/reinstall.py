"""`emp machine reinstall`: one service again, step by step."""

from pathlib import Path

import click

from emp_core.cli.failures import DONE
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option
from emp_core.plugins.manager import load_plugins
from emp_machine.commands.options import env_file_option
from emp_machine.commands.telling import told_on_terminal
from emp_machine.installing.run import install_services
from emp_machine.plan.here import plan_here

__all__ = ["reinstall"]


@click.command()
@click.argument("service")
@env_file_option
@json_option
def reinstall(service: str, env_file: Path | None, as_json: bool) -> int:
    """Do every step of a service's installation again: branches go to their newest commit, what is damaged is mended.

    Models that are there and right are not fetched again, and files that the service has made are left alone. Restart the
    service afterwards: `emp machine restart SERVICE`.

    \b
    Examples:
      WORKERS=comfyui emp machine reinstall comfyui
    """
    made, plugins = plan_here(env_file), load_plugins()

    async def body() -> None:
        with told_on_terminal(quiet=as_json) as tell:
            await install_services(made, plugins, tell, only=[service], again=True)

    run_async(body)
    emit({"service": service}, f"{clean(service)} is installed again, and answers.", as_json=as_json)
    return DONE
