"""From the text of a service mapping to its values: every mistake is found at once, each with its path."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from attrs import define, field

from emp_core.errors import ConfigError
from emp_core.jobs.requirements import kind_of
from emp_core.services.interpolate import JsonObject, at, expand
from emp_core.services.ports import PORT_MAX
from emp_core.services.reading import EntryReader
from emp_core.services.schema import ConnectorEntry, ServiceEntry, ServiceRoute, ServiceType, WorkerType

__all__ = ["MAPPING_MAX_BYTES", "Parts", "check_references", "load_json", "parse_parts"]

MAPPING_MAX_BYTES = 2**20
"""The largest service mapping that is read."""

SECTIONS = ("workers", "services", "connectors")

_INSTANCES_MAX = 64
_NAME_MAX = 128

E = TypeVar("E")


@define
class Parts:
    """What stands in one document, and what is wrong with it.

    Attributes:
        problems: the mistakes by entry (``services.echo``) and path, those outside of entries under ""; an entry that is
            named here is incomplete.
    """

    workers: dict[str, WorkerType] = field(factory=dict)
    services: dict[str, ServiceEntry] = field(factory=dict)
    connectors: dict[str, ConnectorEntry] = field(factory=dict)
    problems: dict[str, dict[str, str]] = field(factory=dict)
    notes: list[str] = field(factory=list)

    def problem(self, entry: str, path: str, text: str) -> None:
        """Take note of a mistake; only the first one of a place, since others follow from it."""
        self.problems.setdefault(entry, {}).setdefault(path, text)

    def problems_of(self, entry: str) -> tuple[str, ...]:
        """The mistakes of an entry, each with its path."""
        return tuple(f"{path}: {text}" for path, text in self.problems.get(entry, {}).items())

    def all_problems(self) -> tuple[str, ...]:
        """All mistakes, each with its path."""
        return tuple(text for entry in self.problems for text in self.problems_of(entry))


def load_json(text: str | bytes, source: str) -> Any:
    """Read the text of a mapping.

    Raises:
        ConfigError: it is too large, not UTF-8 or not JSON; says where.
    """
    if len(text) > MAPPING_MAX_BYTES:
        raise ConfigError(f"the service mapping {source} is larger than {MAPPING_MAX_BYTES:,} bytes")
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the service mapping {source} is not UTF-8: {error.reason} at byte {error.start}") from error
    if not decoded.strip():
        raise ConfigError(f"the service mapping {source} is empty", hint="an empty mapping is written {}")
    try:
        return json.loads(decoded, object_pairs_hook=JsonObject.of, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the service mapping {source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            details={"line": error.lineno, "column": error.colno},
        ) from error
    except RecursionError as error:
        raise ConfigError(f"the service mapping {source} is nested too deep") from error
    except ValueError as error:
        raise ConfigError(f"the service mapping {source} is not JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def parse_parts(document: Any, environ: Mapping[str, str]) -> Parts:
    """Read a mapping's entries, with ``${VAR}`` replaced. References between entries are not looked at."""
    parts = Parts()
    if not isinstance(document, Mapping):
        parts.problem("", "the whole file", f"expected an object with {', '.join(SECTIONS)}, not {kind_of(document)}")
        return parts
    for key in getattr(document, "repeated", ()):
        parts.problem("", at("", key), "is given twice")
    for key in document:
        if key not in SECTIONS:
            close = get_close_matches(key, SECTIONS, n=1)
            parts.notes.append(f"{at('', key)}: not read" + (f"; did you mean {close[0]}?" if close else ""))
    _section(document, "workers", _worker, parts.workers, environ, parts)
    _section(document, "services", _service, parts.services, environ, parts)
    _section(document, "connectors", _connector, parts.connectors, environ, parts)
    return parts


def _section(
    document: Mapping[str, Any],
    section: str,
    parse: Callable[[EntryReader], E],
    into: dict[str, E],
    environ: Mapping[str, str],
    parts: Parts,
) -> None:
    entries = document.get(section)
    if entries is None:
        return
    if not isinstance(entries, Mapping):
        parts.problem("", section, f"expected an object, not {kind_of(entries)}")
        return
    for key in getattr(entries, "repeated", ()):
        parts.problem("", at(section, key), "is given twice")
    for name, given in entries.items():
        path = at(section, name)
        reader = EntryReader(path)
        if wrong := _name_problem(name, section):
            reader.problem(path, wrong)
        reader.given = expand(given, environ, path, reader.problem)
        into[name] = parse(reader)
        if reader.problems:
            parts.problems[path] = reader.problems
        parts.notes += reader.notes


def _name_problem(name: str, section: str) -> str | None:
    if not name.strip() or not name.isprintable() or len(name) > _NAME_MAX:
        return f"a name has 1 to {_NAME_MAX} printable characters"
    if section == "workers" and (set(name) & set(",:") or name != name.strip()):
        return "a worker type's name cannot hold ',' or ':', nor begin or end with a space: WORKERS could not name it"
    return None


def _worker(read: EntryReader) -> WorkerType:
    read.only("services", "is_gpu_bound", "job_service_required_map")
    services, is_gpu_bound = read.texts("services", required=True), read.flag("is_gpu_bound")
    if services == () and not read.problems:
        read.problem(at(read.path, "services"), "names no service")
    return WorkerType(services, is_gpu_bound, _routes(read, services))


def _routes(read: EntryReader, services: tuple[str, ...]) -> tuple[ServiceRoute, ...]:
    items = read.items("job_service_required_map")
    if items is None:
        return tuple(ServiceRoute(name, name) for name in services)
    routes: list[ServiceRoute] = []
    served_by: dict[str, str] = {}
    for item in items:
        item.only("job_service_required", "worker_service")
        required = item.text("job_service_required", required=True, longest=_NAME_MAX) or ""
        service = item.text("worker_service", required=True, longest=_NAME_MAX) or ""
        routes.append(ServiceRoute(required, service))
        if required and service and served_by.setdefault(required, service) != service:
            path = at(item.path, "job_service_required")
            item.problem(path, f"{required!r} goes to {served_by[required]!r} already; a worker has one service for it")
    return tuple(routes)


def _service(read: EntryReader) -> ServiceEntry:
    unknown = read.others(
        *("connector", "type", "installer", "installer_filename", "is_gpu_bound", "service_instances_per_gpu"),
        *("ports", "port_increment", "installer_config"),
    )
    connector = read.text("connector", required=True, longest=_NAME_MAX)
    kind = read.one_of("type", tuple(ServiceType))
    entry = ServiceEntry(
        connector=connector or "",
        type=ServiceType(kind) if kind else ServiceType.EXTERNAL,
        installer=read.text("installer"),
        installer_filename=read.text("installer_filename"),
        is_gpu_bound=read.flag("is_gpu_bound"),
        service_instances_per_gpu=read.whole("service_instances_per_gpu", 1, _INSTANCES_MAX, default=1),
        ports=read.wholes("ports", 1, PORT_MAX),
        port_increment=read.whole("port_increment", 1, PORT_MAX, default=1),
        installer_config=read.mapping("installer_config"),
        extra=unknown,
    )
    _note_what_has_no_effect(read, entry)
    return entry


def _note_what_has_no_effect(read: EntryReader, entry: ServiceEntry) -> None:
    if entry.installer_filename:
        read.note("installer_filename", f"{entry.installer_filename!r} is not loaded: installers come from plugins")
    if not entry.runs_here:
        for key in ("installer", "ports"):
            if getattr(entry, key):
                read.note(key, f"has no effect: a service of type {entry.type} does not run on this machine")


def _connector(read: EntryReader) -> ConnectorEntry:
    read.only("path", "description")
    entry = ConnectorEntry(read.text("path") or "", read.text("description") or "")
    if entry.path:
        read.note("path", f"{entry.path!r} is not loaded: connectors come from plugins")
    return entry


def check_references(
    parts: Parts, services: Collection[str], connectors: Collection[str], has_connector: Callable[[str], bool]
) -> None:
    """Add the mistakes of entries that name what does not exist.

    Args:
        services: the names of all services that there are, those with mistakes included.
        connectors: the names of known connectors, to suggest one.
        has_connector: whether there is a connector of this name.
    """
    for name, worker in parts.workers.items():
        entry = at("workers", name)
        for path, service in _services_named(entry, worker):
            if service and service not in services:
                parts.problem(entry, path, f"no service is named {service!r}{_meant(service, services)}")
    for name, made in parts.services.items():
        entry = at("services", name)
        if made.connector and not has_connector(made.connector):
            text = f"no installed plugin has the connector {made.connector!r}, and the mapping does not describe it"
            parts.problem(entry, at(entry, "connector"), text + _meant(made.connector, connectors))


def _services_named(entry: str, worker: WorkerType) -> Iterator[tuple[str, str]]:
    path = at(entry, "services")
    yield from ((at(path, i), service) for i, service in enumerate(worker.services))
    path = at(entry, "job_service_required_map")
    for i, route in enumerate(worker.routes):
        # Without a map each service takes the jobs of its own name: nothing stands there that could be wrong.
        if route.worker_service not in worker.services:
            yield at(at(path, i), "worker_service"), route.worker_service


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""
