"""What the code has, in the form in which the reference pages tell it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen

from emp_core.config import Settings, variables_of
from emp_core.plugins.manager import load_plugins
from emp_core.storage.azure_access import AzureSettings
from emp_core.storage.s3_access import S3Settings

__all__ = ["DASH", "Documented", "documented", "in_mappings", "variables"]

_DYNAMIC = {"MACHINE_ID": "the host name", "EMP_DATA_DIR": "`~/.local/share/emp`"}
"""Defaults that are found out on the machine."""

_REFERENCE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")

DASH = "\N{EN DASH}"
"""What stands in a cell that has nothing."""


@frozen
class Documented:
    """A variable as a page has it."""

    default: str
    help: str


@cache
def variables() -> dict[str, Documented | None]:
    """Every variable that is read; None for those that only a service mapping refers to, and for other names of one."""
    found: dict[str, Documented | None] = {"XDG_DATA_HOME": None}
    for settings_class in (Settings, AzureSettings, S3Settings, *load_plugins().settings_classes()):
        found |= documented(settings_class)
    return {**dict.fromkeys(in_mappings()), **found}


def documented(settings_class: type) -> dict[str, Documented | None]:
    """The variables of a settings class, as a page has them."""
    found: dict[str, Documented | None] = {}
    for variable in variables_of(settings_class):
        also = f" Also: {', '.join(f'`{name}`' for name in variable.aliases)}." if variable.aliases else ""
        default = _DYNAMIC.get(variable.name) or _shown(variable.default)
        found[variable.name] = Documented(default, variable.help + also)
        found.update(dict.fromkeys(variable.aliases))
    return found


def _shown(default: Any) -> str:
    match default:
        case bool():
            return f"`{str(default).lower()}`"
        case None | "" | ():
            return DASH
        case tuple():
            return f"`{','.join(default)}`"
        case int():
            return f"`{default}`"
        case float():
            return f"`{default:g}`"
        case str() | Path():
            return f"`{default}`"
    assert default is dict, f"say in this test how the default {default!r} is shown"
    return DASH


@cache
def in_mappings(plugin: str | None = None) -> dict[str, str]:
    """The variables that the plugins' mappings refer to, or one plugin's, with their defaults."""
    parts = load_plugins().mapping_parts()
    text = json.dumps([part for name, part in parts.items() if plugin in (None, name)])
    return dict(_REFERENCE.findall(text))
