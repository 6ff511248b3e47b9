"""`emp plugins`: what is installed, and a package to start a plugin from."""

import shlex
from pathlib import Path
from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.output import clean, emit, json_option, note, table
from emp_core.plugins.loaded import PluginListing
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.template import NewPlugin, make_plugin

__all__ = ["plugins"]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> int:
    """List the installed plugins and what they bring; those that cannot be used, with the reason.

    A plugin that does not load is left out, and everything else runs. EMP_LOG_LEVEL=debug shows where it failed.

    \b
    Examples:
      emp plugins
      emp plugins --json | jq '.data[] | select(.ok | not)'
      emp plugins new whisper
    """
    if context.invoked_subcommand is not None:
        return DONE
    debug = prepared().log_level == "debug"
    found = load_plugins()
    listing = found.listing()
    emit([_shown(one) for one in listing], lambda: _table(listing), as_json=as_json)
    for plugin in found.offline if debug else ():
        note(plugin.traceback.rstrip())
    return DONE


@plugins.command("new")
@click.argument("name", metavar="NAME")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The folder to make; emp-NAME when not given.",
)
@json_option
def new(name: str, folder: Path | None, as_json: bool) -> int:
    """Make a package to start a plugin from: a connector to an HTTP service, with tests that pass.

    NAME is what jobs will ask for. Nothing is installed, and no folder that holds anything is touched.

    \b
    Examples:
      emp plugins new whisper
      emp plugins new sound-effects --dir ~/src/sound-effects
    """
    prepared()
    made = make_plugin(name, folder, load_plugins())
    shown = {
        "name": made.name,
        "distribution": made.distribution,
        "folder": str(made.folder),
        "files": list(made.files),
    }
    emit(shown, lambda: _next_steps(made), as_json=as_json)
    return DONE


def _next_steps(made: NewPlugin) -> str:
    steps = [
        f"cd {shlex.quote(str(made.folder))}",
        'pip install -e ".[dev]"      # into a virtual environment',
        "python -m pytest",
        f"WORKERS={made.name} emp up",
    ]
    return "\n".join([f"Made {made.distribution} in {made.folder}. Go on with:", *(f"  {step}" for step in steps)])


def _shown(one: PluginListing) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": one.name,
        "distribution": one.distribution,
        "version": one.version,
        "ok": one.ok,
        "registers": {kind: list(names) for kind, names in one.registers.items()},
    }
    return shown if one.reason is None else {**shown, "reason": one.reason}


def _table(listing: tuple[PluginListing, ...]) -> str:
    rows = [
        (one.name, f"{one.distribution} {one.version}".strip(), "ok" if one.ok else "offline", _what(one))
        for one in listing
    ]
    return table(("plugin", "package", "state", "what"), rows) if rows else "No plugins are installed."


def _what(one: PluginListing) -> str:
    if one.reason is not None:
        return clean(one.reason)
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in one.registers.items() if names)
