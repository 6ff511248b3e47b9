"""Commands that plugins add to ``emp``: asked for by every call of it, so nothing is imported here that takes long."""

import contextlib
from importlib.metadata import entry_points
from typing import Any

import click

from emp_core.errors import PluginError

__all__ = ["add_commands"]

_GROUP = "emp_core.plugins"
_HOOK = "emp_add_commands"


def add_commands(cli: click.Group) -> tuple[PluginError, ...]:
    """Let every plugin add its commands to ``cli``.

    A plugin that does not load adds none; ``emp plugins`` says why. One that raises, or takes the name of a command that
    is there, loses what it added.

    Returns:
        What went wrong, for the caller to show; the command line works without it.
    """
    problems: list[PluginError] = []
    for point in sorted(entry_points(group=_GROUP), key=lambda one: one.name):
        with contextlib.suppress(Exception, SystemExit):
            plugin = point.load()
            if hasattr(plugin, _HOOK) and (problem := _add_commands_of(plugin, point.name, cli)) is not None:
                problems.append(problem)
    return tuple(problems)


def _add_commands_of(plugin: Any, name: str, cli: click.Group) -> PluginError | None:
    before = dict(cli.commands)
    taken = set(cli.list_commands(click.Context(cli)))
    try:
        getattr(plugin, _HOOK)(cli=cli)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        problem = PluginError(f"the plugin {name} failed in {_HOOK}: {type(error).__name__}: {error}")
        problem.__cause__ = error
    else:
        clashes = sorted(
            command for command, made in cli.commands.items() if command in taken and before.get(command) is not made
        )
        if not clashes:
            return None
        problem = PluginError(f"the plugin {name} adds a command that is there already: {', '.join(clashes)} ({_HOOK})")
    cli.commands.clear()
    cli.commands.update(before)
    return problem
