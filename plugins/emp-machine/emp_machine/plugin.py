"""What emp-machine brings to emp-core. Cheap to import: commands are imported when they are used."""

from collections.abc import Sequence

import click

from emp_core.plugins.hookspecs import Registration, hookimpl
from emp_machine.commands.machine import machine
from emp_machine.settings import MachineSettings

__all__ = ["emp_add_commands", "emp_register_installers", "emp_settings"]

_INSTALLERS = "emp_machine.installers"


@hookimpl
def emp_add_commands(cli: click.Group) -> None:
    """``emp machine``."""
    cli.add_command(machine)


@hookimpl
def emp_register_installers() -> Sequence[Registration]:
    """The installers of what no connector belongs to, and of any program."""
    return (
        Registration(
            "RedisDaemonInstaller", f"{_INSTALLERS}.redis_daemon:RedisDaemonInstaller", "a Redis of the machine's own"
        ),
        Registration("A1111ManagementClient", f"{_INSTALLERS}.webui:A1111ManagementClient", "Automatic1111's WebUI"),
        Registration(
            "CommandServiceInstaller",
            f"{_INSTALLERS}.command_service:CommandServiceInstaller",
            "any program that serves",
        ),
    )


@hookimpl
def emp_settings() -> Sequence[type]:
    """The plugin's variables."""
    return (MachineSettings,)
