"""The pages on settings and the code say the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_core.config import Settings
from emp_core.plugins.manager import load_plugins
from emp_core.storage.azure_access import AzureSettings
from emp_core.storage.s3_access import S3Settings

from .known import Documented, documented, in_mappings
from .pages import DOCS, HOUSE, page

SETTINGS = DOCS / "reference" / "settings.md"
NO_DEFAULT = "\N{EN DASH}"
PLUGINS = sorted(path.parent.name for path in (HOUSE / "plugins").glob("*/README.md"))


def settings_of(distribution: str) -> dict[str, Documented | None]:
    """The variables of all settings classes of a plugin."""
    package = distribution.replace("-", "_")
    classes = [one for one in load_plugins().settings_classes() if one.__module__.startswith(f"{package}.")]
    assert classes
    return {name: row for one in classes for name, row in documented(one).items()}


def places() -> Iterator[Any]:
    """Pages and headings, and what stands below each."""
    yield pytest.param(SETTINGS, "The core", documented(Settings), id="core")
    yield pytest.param(SETTINGS, "azure:// stores", documented(AzureSettings), id="azure")
    yield pytest.param(SETTINGS, "s3:// stores", documented(S3Settings), id="s3")
    for plugin in PLUGINS:
        yield pytest.param(SETTINGS, plugin, settings_of(plugin), id=plugin)
        yield pytest.param(
            HOUSE / "plugins" / plugin / "README.md", "Settings", settings_of(plugin), id=f"{plugin}-readme"
        )


@pytest.mark.parametrize(("path", "heading", "settings"), list(places()))
def test_every_setting_is_on_the_page_as_it_is_in_the_code(
    path: Path, heading: str, settings: dict[str, Documented | None]
) -> None:
    wanted = {name: row for name, row in settings.items() if row is not None}
    shown = {name: Documented(*row) for name, row in page(path).section(heading).table.items() if len(row) == 2}
    wrong = [f"| `{name}` | {row.default} | {row.help} |" for name, row in wanted.items() if shown.get(name) != row]
    assert not wrong, "rows as they should be:\n" + "\n".join(wrong)
    assert not shown.keys() - wanted.keys() - in_mappings().keys(), "the code does not read these"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_variable_of_the_service_mapping_is_on_the_pages(plugin: str) -> None:
    settings = settings_of(plugin)
    aliases = {name for name, row in settings.items() if row is None}
    # What the plugin reads itself, too, stands among its settings.
    wanted = {
        name: f"`{value}`" if value else NO_DEFAULT
        for name, value in in_mappings(plugin.removeprefix("emp-")).items()
        if not settings.get(name)
    }
    for path in (HOUSE / "plugins" / plugin / "README.md", SETTINGS):
        shown = page(path).section("In the service mapping").table if wanted else {}
        assert {name: row[0] for name, row in shown.items() if name in wanted} == wanted
    assert not {name for name in aliases if name in in_mappings()} - wanted.keys()
