"""Options that several commands have."""

from pathlib import Path

import click

__all__ = ["env_file_option", "manager_option"]

env_file_option = click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of variables; `.env` in the current folder when not given. What is set in the environment goes first.",
)

manager_option = click.option(
    "--manager",
    type=click.Choice(["auto", "pm2", "supervisor"]),
    help="What keeps the processes, in the place of EMP_PROCESS_MANAGER.",
)
