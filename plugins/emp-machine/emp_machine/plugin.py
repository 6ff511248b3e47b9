"""What emp-machine brings to emp-core. Cheap to import: commands are imported when they are used."""

from collections.abc import Sequence

import click

from emp_core.plugins.hookspecs import hookimpl
from emp_machine.commands.machine import machine
from emp_machine.settings import MachineSettings

__all__ = ["emp_add_commands", "emp_settings"]


@hookimpl
def emp_add_commands(cli: click.Group) -> None:
    """``emp machine``."""
    cli.add_command(machine)


@hookimpl
def emp_settings() -> Sequence[type]:
    """The plugin's variables."""
    return (MachineSettings,)
