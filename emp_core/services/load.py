"""Which service mapping holds: the user's file, entry by entry over what the plugins bring."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.services.interpolate import at
from emp_core.services.parse import MAPPING_MAX_BYTES, SECTIONS, Parts, check_references, load_json, parse_parts
from emp_core.services.schema import ServiceMapping

__all__ = ["SEARCH_PATHS", "MappingPlugins", "OfflineReason", "load_mapping", "read_mapping"]

SEARCH_PATHS = (
    Path("/workspace/worker-bundled/src/config/service-mapping.json"),
    Path("/workspace/src/config/service-mapping.json"),
)
"""Where a service mapping is looked for when EMP_SERVICE_MAPPING does not name one; the first that exists counts."""


class OfflineReason(Protocol):
    """A plugin that could not be loaded, and why."""

    @property
    def name(self) -> str:
        """The plugin's name."""
        ...

    @property
    def reason(self) -> str:
        """Why it is offline, in one line."""
        ...


class MappingPlugins(Protocol):
    """What the mapping needs to know of the plugins; `emp_core.plugins` has it."""

    @property
    def connectors(self) -> Mapping[str, Any]:
        """The registered connectors, by name."""
        ...

    @property
    def offline(self) -> Sequence[OfflineReason]:
        """The plugins that could not be loaded."""
        ...

    def mapping_parts(self) -> Mapping[str, Mapping[str, Any]]:
        """The plugins' parts of the mapping, by plugin."""
        ...

    def offline_for(self, connector: str) -> OfflineReason | None:
        """The offline plugin that would have brought this connector."""
        ...


def load_mapping(
    settings: Settings, plugins: MappingPlugins, environ: Mapping[str, str], *, search: Sequence[Path] = SEARCH_PATHS
) -> ServiceMapping:
    """The mapping that holds: the file of EMP_SERVICE_MAPPING, else the first one of ``search``, over the plugins' parts.

    An entry of the file takes the place of the plugins' entry of the same name. Without a file the plugins' parts are all.

    Raises:
        ConfigError: the file cannot be read, or has mistakes; lists all of them.
    """
    if settings.service_mapping is not None:
        path = settings.service_mapping
        content = _content(path)
        if content is None:
            raise ConfigError(
                f"the service mapping {path} does not exist",
                hint="correct EMP_SERVICE_MAPPING, or unset it to use what the installed plugins bring",
            )
        return read_mapping(content, plugins, environ, source=str(path))
    for path in search:
        if (content := _content(path)) is not None:
            return read_mapping(content, plugins, environ, source=str(path))
    return _merge(Parts(), plugins, environ, source="plugins")


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            # One more than is taken, so that a file that is too large is told apart without being read whole.
            return file.read(MAPPING_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"the service mapping {path} cannot be read: {error.strerror or error}",
            hint="give EMP_SERVICE_MAPPING the path of a file that this user may read",
        ) from error


def read_mapping(
    text: str | bytes, plugins: MappingPlugins, environ: Mapping[str, str], *, source: str
) -> ServiceMapping:
    """Read a mapping's text, and put it over the plugins' parts.

    Raises:
        ConfigError: it is not JSON, or has mistakes; lists all of them, each with its path.
    """
    return _merge(parse_parts(load_json(text, source), environ), plugins, environ, source=source)


def _merge(own: Parts, plugins: MappingPlugins, environ: Mapping[str, str], *, source: str) -> ServiceMapping:
    """The file's entries over the plugins'. Mistakes of a plugin are no fault of the user: who needs the entry is told."""
    brought = _parts_of_plugins(plugins, environ)
    services = {*brought.services, *own.services}
    described = {*brought.connectors, *own.connectors}

    def has_connector(name: str) -> bool:
        return name in plugins.connectors or name in described or plugins.offline_for(name) is not None

    for parts in (brought, own):
        check_references(parts, services, {*plugins.connectors, *described}, has_connector)
    if problems := own.all_problems():
        raise ConfigError(
            f"the service mapping {source} has {len(problems)} mistake{'s' if len(problems) > 1 else ''}",
            problems=problems,
        )
    own_entries = {at(section, name) for section in SECTIONS for name in getattr(own, section)}
    unusable = {entry: brought.problems_of(entry) for entry in brought.problems if entry not in own_entries}
    return ServiceMapping(
        workers=_usable("workers", {**brought.workers, **own.workers}, unusable),
        services=_usable("services", {**brought.services, **own.services}, unusable),
        connectors=_usable("connectors", {**brought.connectors, **own.connectors}, unusable),
        source=source,
        notes=tuple(own.notes),
        unusable=unusable,
    )


def _parts_of_plugins(plugins: MappingPlugins, environ: Mapping[str, str]) -> Parts:
    together = Parts()
    for plugin, document in plugins.mapping_parts().items():
        parts = parse_parts(document, environ)
        together.workers |= parts.workers
        together.services |= parts.services
        together.connectors |= parts.connectors
        for entry, texts in parts.problems.items():
            for path, text in texts.items():
                together.problem(entry, path, f"{text} (of the plugin {plugin})")
    return together


def _usable(section: str, entries: Mapping[str, Any], unusable: Collection[str]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if at(section, name) not in unusable}
