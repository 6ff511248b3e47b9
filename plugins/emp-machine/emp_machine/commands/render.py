"""`emp machine render`: the plan as files for somebody else's programs."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from emp_core.cli.failures import DONE
from emp_core.cli.output import emit, json_option
from emp_machine.commands.options import env_file_option
from emp_machine.plan.here import plan_here
from emp_machine.render.files import RenderedFile, write_files

__all__ = ["RENDERERS", "render"]

RENDERERS = {
    "env": "machine.env with the settings, and a file of variables for each process",
    "pm2": "ecosystem.config.js",
    "supervisor": "supervisord.conf",
    "systemd": "a unit for each process, and emp-machine.target for all",
    "compose": "docker-compose.yml, and secrets.env with its secrets",
    "docker": "Dockerfile, and for each pool the lists of its models and custom nodes",
    "kubernetes": "deployment.yaml, scaledobject.yaml for KEDA, and secret.yaml",
}
"""What can be rendered, each ``emp_machine.render.NAME:render``, and what it writes."""

Renderer = Callable[..., tuple[RenderedFile, ...]]
"""Given the plan and the folder that will hold the files."""


@click.command(epilog="KIND is one of " + "; ".join(f"{name}: {what}" for name, what in RENDERERS.items()) + ".")
@click.argument("kind", type=click.Choice(tuple(RENDERERS)), metavar="KIND")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="The folder to write to; the current one when not given.",
)
@click.option("--per-gpu", is_flag=True, help="With compose: a container for each GPU instead of one for all.")
@env_file_option
@json_option
def render(kind: str, output: Path, per_gpu: bool, env_file: Path | None, as_json: bool) -> int:
    """Write what this machine would run as files for process managers and containers, and print nothing.

    The same plan gives the same files; a file that is as it should be stays untouched. Files that may hold secrets can be
    read by their user alone.

    \b
    Examples:
      WORKERS=comfyui emp machine render pm2 && pm2 start ecosystem.config.js
      emp machine render systemd --output ~/.config/systemd/user
      emp machine render docker && emp machine render compose --per-gpu && docker compose up --build
    """
    if per_gpu and kind != "compose":
        raise click.UsageError("--per-gpu belongs to compose")
    renderer: Renderer = import_module(f"emp_machine.render.{kind}").render
    # Who listens here now does not matter: the files may be for later, or for another machine.
    files = renderer(plan_here(env_file, taken={}), output, **({"per_gpu": True} if per_gpu else {}))
    write_files(files, output)
    emit([output.absolute() / one.path for one in files], "", as_json=as_json)
    return DONE
