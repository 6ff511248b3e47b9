"""A package to start a plugin from: the template that is shipped with emp-core, under a new name."""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attrs import frozen

from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Plugins

__all__ = ["NewPlugin", "make_plugin", "template_files"]

_TEMPLATE = "shout"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_NAME_MAX = 30
_LEFT_OUT = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "dist"}


@frozen
class NewPlugin:
    """A package that was made.

    Attributes:
        name: of the plugin, its service and its worker type.
        distribution: what it is installed as.
        folder: where it is.
        files: what is in it, by paths below the folder.
    """

    name: str
    distribution: str
    folder: Path
    files: tuple[str, ...]


def make_plugin(name: str, folder: Path | None, plugins: Plugins) -> NewPlugin:
    """Write the template's files under a new name.

    Args:
        name: of the plugin: ``whisper``. ``emp-whisper`` means the same.
        folder: where to; ``emp-NAME`` below the working directory when not given.
        plugins: the installed ones, whose names are taken.

    Raises:
        ConfigError: no such name can be given, the folder is not empty or cannot be written.
    """
    name = _checked(name.removeprefix("emp-").removeprefix("emp_"), plugins)
    distribution = f"emp-{name.replace('_', '-')}"
    folder = Path(distribution) if folder is None else folder
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is there already and not empty", hint="give another folder with --dir")
        written = [_write(folder / _renamed(path, name), _renamed(text, name)) for path, text in template_files()]
    except OSError as error:
        raise ConfigError(f"the plugin cannot be written to {folder}: {error.strerror or error}") from error
    return NewPlugin(name, distribution, folder, tuple(sorted(str(path.relative_to(folder)) for path in written)))


def template_files() -> Iterator[tuple[str, str]]:
    """The template's files: paths below its folder, and what is in them."""
    installed = files("emp_core") / "templates" / "plugin"
    # In a checkout the template lies beside the package.
    root = installed if installed.is_dir() else Path(__file__).parents[2] / "templates" / "plugin"
    yield from _below(root, "")


def _below(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.name in _LEFT_OUT:
            continue
        if one.is_dir():
            yield from _below(one, f"{path}{one.name}/")
        else:
            yield f"{path}{one.name}", one.read_text(encoding="utf-8")


def _checked(name: str, plugins: Plugins) -> str:
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        raise ConfigError(
            f"{name!r} cannot be the name of a plugin",
            hint=f"use lower-case letters, digits and single hyphens, a letter first, at most {_NAME_MAX} in all: sound-effects",
        )
    services = {service for part in plugins.mapping_parts().values() for service in part.get("services", ())}
    if name in {"core", *services, *(listed.name for listed in plugins.listing())}:
        raise ConfigError(f"{name!r} is the name of something that is installed here", hint="choose another name")
    return name


def _renamed(text: str, name: str) -> str:
    """A path or a text of the template with its name changed, in each form that the name has."""
    snake, hyphens = name.replace("-", "_"), name.replace("_", "-")
    forms = {
        f"emp-{_TEMPLATE}": f"emp-{hyphens}",
        f"emp_{_TEMPLATE}": f"emp_{snake}",
        f"fake_{_TEMPLATE}": f"fake_{snake}",
        _TEMPLATE.capitalize(): "".join(word.capitalize() for word in snake.split("_")),
        _TEMPLATE.upper(): snake.upper(),
        _TEMPLATE: name,
    }
    return re.sub("|".join(forms), lambda found: forms[found[0]], text)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
