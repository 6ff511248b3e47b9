"""What WORKERS makes of the service mapping: worker types → services → connectors."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from attrs import field, frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError
from emp_core.services.interpolate import at
from emp_core.services.load import MappingPlugins, load_mapping
from emp_core.services.schema import ServiceEntry, ServiceMapping, ServiceType, WorkerType

__all__ = ["ServiceBinding", "WorkerPlan", "load_mapping", "resolve_workers"]

COUNT_MAX = 256
"""The most workers of one type that an item of WORKERS may ask for."""

_PACKAGE = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*", re.IGNORECASE)


@frozen
class ServiceBinding:
    """A service that a worker speaks to.

    Attributes:
        service: the worker's name of it.
        accepts: what jobs may require to be given to it.
        connector: the registered name of its connector.
        config: what the connector is told.
    """

    service: str
    accepts: tuple[str, ...]
    connector: str
    entry: ServiceEntry
    config: ServiceConfig = field(repr=False)


@frozen
class WorkerPlan:
    """One worker to run.

    Attributes:
        index: its number among those of its type, from 0.
    """

    worker_type: str
    index: int
    is_gpu_bound: bool
    services: tuple[ServiceBinding, ...]


def resolve_workers(
    workers: Sequence[str], mapping: ServiceMapping, plugins: MappingPlugins, environ: Mapping[str, str]
) -> tuple[WorkerPlan, ...]:
    """The workers that WORKERS asks for: ``echo`` is one of that type, ``echo:2`` two.

    A worker type whose plugin is offline is planned all the same, with a connector that says why it takes no jobs.

    Raises:
        ConfigError: WORKERS is empty, or items of it cannot be used; lists all of them, what exists, and what may be missing.
    """
    known = tuple(sorted(mapping.workers))
    if not workers:
        raise ConfigError(
            f"WORKERS is empty, so there is nothing to run; worker types here are: {', '.join(known) or 'none'}",
            hint=f"set WORKERS, for example WORKERS={known[0]}" if known else "install a plugin that brings a service",
            details={"known": list(known)},
        )
    problems: list[str] = []
    plans: list[WorkerPlan] = []
    counts: dict[str, int] = {}
    for item in workers:
        name, count = _item(item, problems)
        worker = mapping.workers.get(name) or _of_offline_plugin(name, plugins)
        if worker is None:
            problems += _unknown(name, mapping, plugins)
            continue
        services = _bindings(name, worker, mapping, plugins, environ, problems)
        first = counts.get(name, 0)
        counts[name] = first + count
        plans += (WorkerPlan(name, first + i, worker.is_gpu_bound, services) for i in range(count))
    if problems:
        raise ConfigError(
            f"WORKERS={','.join(workers)} cannot be run; worker types here are: {', '.join(known) or 'none'}",
            problems=tuple(dict.fromkeys(problems)),
            details={"known": list(known)},
        )
    return tuple(plans)


def _item(item: str, problems: list[str]) -> tuple[str, int]:
    name, colon, count = item.partition(":")
    if not colon:
        return name, 1
    if count.isascii() and count.isdecimal() and len(count) < 9 and 1 <= int(count) <= COUNT_MAX:
        return name.strip(), int(count)
    problems.append(f"{item!r}: expected a whole number from 1 to {COUNT_MAX} after the ':', not {count[:20]!r}")
    return name.strip(), 1


def _of_offline_plugin(name: str, plugins: MappingPlugins) -> WorkerType | None:
    """A plugin that did not load cannot tell its worker types; by custom the first has the plugin's own name."""
    if any(plugin.name == name for plugin in plugins.offline):
        return WorkerType(services=(name,))
    return None


def _unknown(name: str, mapping: ServiceMapping, plugins: MappingPlugins) -> list[str]:
    if faults := mapping.unusable.get(at("workers", name)):
        return list(faults)
    if offline := plugins.offline_for(name):
        return [f"{name!r}: no worker type of this name; the plugin {offline.name} is offline: {offline.reason}"]
    close = get_close_matches(name, mapping.workers, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    package = f"a package may be missing: pip install emp-{name.lower()}" if _PACKAGE.fullmatch(name) else ""
    advice = f"{meant}{'if not, ' if meant and package else ''}{package}".strip()
    return [f"{name!r}: no worker type of this name; {advice or 'correct WORKERS'}"]


def _bindings(
    name: str,
    worker: WorkerType,
    mapping: ServiceMapping,
    plugins: MappingPlugins,
    environ: Mapping[str, str],
    problems: list[str],
) -> tuple[ServiceBinding, ...]:
    if name not in mapping.workers:
        entry = ServiceEntry(connector=name, type=ServiceType.EXTERNAL)
        return (ServiceBinding(name, (name,), name, entry, ServiceConfig(name, environ)),)
    if not worker.accepts:
        problems.append(f"{name!r}: its job_service_required_map is empty, so it takes no jobs")
    found: list[ServiceBinding] = []
    for service, accepts in worker.accepts.items():
        if service not in mapping.services:
            absent = (f"{name!r}: the mapping has no service {service!r}",)
            problems += mapping.unusable.get(at("services", service), absent)
            continue
        entry = mapping.services[service]
        if entry.connector not in plugins.connectors and plugins.offline_for(entry.connector) is None:
            problems.append(_without_connector(name, service, entry.connector, plugins))
            continue
        config = ServiceConfig(service, environ, entry.options)
        found.append(ServiceBinding(service, accepts, entry.connector, entry, config))
    return tuple(found)


def _without_connector(worker: str, service: str, connector: str, plugins: MappingPlugins) -> str:
    close = get_close_matches(connector, plugins.connectors, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    package = f"; a package may be missing: pip install emp-{service.lower()}" if _PACKAGE.fullmatch(service) else ""
    return f"{worker!r}: no installed plugin has the connector {connector!r} of the service {service!r}{meant}{package}"
