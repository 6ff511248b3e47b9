"""`emp machine`: finds the command. Nothing else is imported before one is chosen."""

from importlib import import_module

import click

__all__ = ["COMMANDS", "machine"]

COMMANDS = {
    "up": "Hold this machine: install, start and watch what it runs, until told to stop.",
    "status": "Show how its processes are.",
    "logs": "Show what its processes have put out.",
    "start": "Start what does not run.",
    "stop": "End processes.",
    "restart": "End processes and start them again.",
    "reload": "Restart processes one after another.",
    "update": "Install new code where the workers run, and restart them with it one after another.",
    "doctor": "Check this machine, and say what to do.",
    "plan": "Show what this machine would run.",
    "gpus": "Show the machine's GPUs.",
    "render": "Write what it would run as files for process managers and containers.",
    "install": "Install the services, from wherever the last time ended.",
    "reinstall": "Install a service again, step by step.",
}
"""The commands, each ``emp_machine.commands.NAME:NAME``, and what the overview says of them."""

_TOGETHER: dict[str, str] = dict.fromkeys(("status", "logs", "start", "stop", "restart", "reload"), "processes")
"""Commands that share a module."""


class _Commands(click.Group):
    """Commands that are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(f"emp_machine.commands.{_TOGETHER.get(cmd_name, cmd_name)}"), cmd_name
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands)
def machine() -> None:
    """Hold a machine with GPUs: what it runs, from a bare machine to workers that take jobs.

    \b
    Examples:
      WORKERS=comfyui,ollama emp machine plan
    """
