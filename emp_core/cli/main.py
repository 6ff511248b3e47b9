"""``emp``: finds the command, runs it, and turns what it raises into an exit code.

Nothing but click is imported before a command is chosen, so that ``emp --help`` is quick.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

import click

from emp_core.cli.output import OutputClosed, warn

__all__ = ["cli", "main", "run"]

COMMANDS = {
    "up": "Run everything on this machine: Redis and the workers.",
    "demo": "Run one job the whole way, with nothing set up.",
    "worker": "Run workers, for a process manager.",
    "submit": "Put a job into the queue.",
    "jobs": "Look at jobs, wait for them, cancel and retry them.",
    "artifacts": "List what jobs have put out, fetch it, and delete it.",
    "workers": "List the workers that are alive, and drain them.",
    "machines": "List the machines that speak.",
    "plugins": "List the installed plugins.",
    "services": "Show the service mapping that holds here.",
    "doctor": "Check the installation, and say what to do.",
    "redis": "Show and stop the embedded Redis.",
}
"""The core's own commands, each ``emp_core.cli.NAME:NAME``, and what the overview says of them."""


class _Commands(click.Group):
    """Commands that are imported when they are used, and those of plugins."""

    _asked_plugins = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        self._ask_plugins()
        return [*COMMANDS, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in COMMANDS:
            command: click.Command = getattr(import_module(f"emp_core.cli.{cmd_name}"), cmd_name)
            return command
        self._ask_plugins()
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"{error.message}{meant}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(COMMANDS.items())
        rows += [(n, self.commands[n].get_short_help_str(80)) for n in self.list_commands(ctx) if n not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _ask_plugins(self) -> None:
        """Let the plugins add their commands, once. What is wrong with one of them is said, and the others work."""
        if self._asked_plugins:
            return
        self._asked_plugins = True
        from emp_core.plugins.commands import add_commands  # only where plugins are asked

        for problem in add_commands(self):
            warn(problem.message)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"emp {version('emp-core')}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the job failed, 2 wrong usage or configuration, 3 Redis or a service could not be "
    "reached, 130 interrupted. `emp COMMAND --help` shows examples.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """AI work as jobs: submit it to a queue, let workers run it, and find what came out.

    \b
    A first try, with nothing set up:
      emp demo

    \b
    In one terminal, and then in another:
      WORKERS=echo emp up
      echo '{"hello": 1}' | emp submit echo - --wait
    """


def run(arguments: Sequence[str], *, command: click.Command = cli, name: str = "emp") -> int:
    """Run a command line; gives its exit code.

    Args:
        command: ``emp``, or a program of a plugin's own: it fails in the same words and with the same codes.
        name: what that program is called.
    """
    as_json = "--json" in arguments
    stdout = sys.stdout
    try:
        try:
            return _exit_code(command.main(list(arguments), prog_name=name, standalone_mode=False))
        except SystemExit as ended:
            # click's own way out when it cannot print its help: it has put something else in the place of stdout.
            if sys.stdout is not stdout:
                raise OutputClosed from ended
            raise
        except OutputClosed:
            raise
        except (Exception, KeyboardInterrupt) as error:
            # Only now: the tree of errors is not needed where all goes well.
            from emp_core.cli.failures import explain

            failure = explain(error)
            failure.tell(as_json=as_json)
            return failure.exit_code
    except (OutputClosed, BrokenPipeError):
        # Whoever reads has seen enough. The interpreter flushes once more at its end: let it find nothing wrong.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _exit_code(returned: Any) -> int:
    return returned if isinstance(returned, int) else 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
