"""Options that several commands have."""

from pathlib import Path

import click

__all__ = ["env_file_option"]

env_file_option = click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of variables; `.env` in the current folder when not given. What is set in the environment goes first.",
)
