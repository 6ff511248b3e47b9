"""The pages on settings and the code say the same."""

from pathlib import Path

import pytest

from emp_core.config import Settings
from emp_core.plugins.manager import load_plugins

from .known import Documented, documented, in_mappings
from .pages import DOCS, HOUSE, page

SETTINGS = DOCS / "reference" / "settings.md"
COMFYUI = HOUSE / "plugins" / "emp-comfyui" / "README.md"


def settings_of(package: str) -> dict[str, Documented | None]:
    """The variables of all settings classes of a plugin."""
    classes = [one for one in load_plugins().settings_classes() if one.__module__.startswith(f"{package}.")]
    assert classes
    return {name: row for one in classes for name, row in documented(one).items()}


@pytest.mark.parametrize(
    ("path", "heading", "settings"),
    [
        (SETTINGS, "The core", documented(Settings)),
        (SETTINGS, "emp-comfyui", settings_of("emp_comfyui")),
        (COMFYUI, "Settings", settings_of("emp_comfyui")),
    ],
    ids=["core", "comfyui", "comfyui-readme"],
)
def test_every_setting_is_on_the_page_as_it_is_in_the_code(
    path: Path, heading: str, settings: dict[str, Documented | None]
) -> None:
    wanted = {name: row for name, row in settings.items() if row is not None}
    shown = {name: Documented(*row) for name, row in page(path).section(heading).table.items() if len(row) == 2}
    wrong = [f"| `{name}` | {row.default} | {row.help} |" for name, row in wanted.items() if shown.get(name) != row]
    assert not wrong, "rows as they should be:\n" + "\n".join(wrong)
    assert not shown.keys() - wanted.keys() - in_mappings().keys(), "the code does not read these"


@pytest.mark.parametrize("path", [SETTINGS, COMFYUI], ids=["settings", "comfyui-readme"])
def test_every_variable_of_the_service_mapping_is_on_the_page(path: Path) -> None:
    aliases = {name for name, row in settings_of("emp_comfyui").items() if row is None}
    shown = page(path).section("In the service mapping").table
    wanted = {name: f"`{default}`" for name, default in in_mappings().items()}
    assert {name: row[0] for name, row in shown.items()} == wanted
    assert aliases <= wanted.keys()
