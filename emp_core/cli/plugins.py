"""`emp plugins`: what is installed."""

from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.output import clean, emit, json_option, note, table
from emp_core.plugins.loaded import PluginListing
from emp_core.plugins.manager import load_plugins

__all__ = ["plugins"]


@click.command()
@json_option
def plugins(as_json: bool) -> int:
    """List the installed plugins and what they bring; those that cannot be used, with the reason.

    A plugin that does not load is left out, and everything else runs. EMP_LOG_LEVEL=debug shows where it failed.

    \b
    Examples:
      emp plugins
      emp plugins --json | jq '.data[] | select(.ok | not)'
    """
    debug = prepared().log_level == "debug"
    found = load_plugins()
    listing = found.listing()
    emit([_shown(one) for one in listing], lambda: _table(listing), as_json=as_json)
    for plugin in found.offline if debug else ():
        note(plugin.traceback.rstrip())
    return DONE


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
