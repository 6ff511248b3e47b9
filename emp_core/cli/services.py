"""`emp services`: the service mapping that holds here."""

import json
from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.output import clean, emit, json_option, note, table
from emp_core.config import environment
from emp_core.connectors.payload_schema import DIALECT, payload_schema
from emp_core.errors import ConfigError, PluginError
from emp_core.plugins.loaded import Plugins, known_names
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.offline import offline_reason
from emp_core.plugins.preparing import connectors_for, payload_classes
from emp_core.services.resolve import load_mapping
from emp_core.services.schema import ServiceEntry, ServiceMapping

__all__ = ["services"]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def services(context: click.Context, as_json: bool) -> int:
    """Show what WORKERS can name: worker types, their services and connectors, and where the mapping came from.

    The mapping is the file of EMP_SERVICE_MAPPING, or what the plugins bring; entries of the file go first. Options of
    services are not shown: they may hold secrets.

    \b
    Examples:
      emp services
      EMP_SERVICE_MAPPING=./service-mapping.json emp services --json
      emp services schema echo
    """
    if context.invoked_subcommand is not None:
        return DONE
    settings = prepared()
    plugins = load_plugins()
    mapping = load_mapping(settings, plugins, environment())
    emit(_shown(mapping, plugins), lambda: _text(mapping, plugins), as_json=as_json)
    return DONE


@services.command("schema")
@click.argument("name", metavar="NAME")
@json_option
def schema(name: str, as_json: bool) -> int:
    """Print the JSON Schema (draft 2020-12) of the payloads that a service takes.

    NAME is what a job names as its service. Where several connectors serve it, a payload has to fit one of them.

    \b
    Examples:
      emp services schema echo
      emp services schema echo > echo.schema.json
    """
    settings = prepared()
    plugins = load_plugins()
    mapping = load_mapping(settings, plugins, environment())
    document = _schema(name, plugins, mapping)
    emit(document, lambda: json.dumps(document, indent=2), as_json=as_json)
    return DONE


def _schema(name: str, plugins: Plugins, mapping: ServiceMapping) -> dict[str, Any]:
    known = {job for worker in mapping.workers.values() for accepted in worker.accepts.values() for job in accepted}
    if name not in known:
        raise ConfigError(
            f"no worker type here takes jobs for {name!r}",
            hint=known_names(name, known),
            details={"known": sorted(known)},
        )
    connectors = connectors_for(name, plugins, mapping)
    for connector in connectors:
        if (reason := offline_reason(connector)) is not None:
            raise PluginError(
                f"a connector of {name!r} cannot be asked: {reason}", hint="`emp plugins` shows what is installed"
            )
    classes = payload_classes(name, connectors)
    if classes is None:
        note(f"a connector of {name!r} declares no payload class: any payload is taken")
        return {"$schema": DIALECT, "description": f"Any payload: what {name} takes is not declared."}
    return payload_schema(*classes)


def _shown(mapping: ServiceMapping, plugins: Plugins) -> dict[str, Any]:
    return {
        "source": mapping.source,
        "workers": {
            name: {
                "services": list(worker.services),
                "accepts": {service: list(accepted) for service, accepted in worker.accepts.items()},
                "is_gpu_bound": worker.is_gpu_bound,
            }
            for name, worker in mapping.workers.items()
        },
        "services": {name: _service(entry, plugins) for name, entry in mapping.services.items()},
        "connectors": {
            name: {"plugin": one.plugin, "description": one.registration.description}
            for name, one in sorted(plugins.connectors.items())
        },
        "notes": list(mapping.notes),
        "unusable": {path: list(problems) for path, problems in mapping.unusable.items()},
    }


def _service(entry: ServiceEntry, plugins: Plugins) -> dict[str, Any]:
    return {
        "connector": entry.connector,
        "connector_state": _connector_state(entry.connector, plugins),
        "type": entry.type.value,
        "installer": entry.installer,
        "is_gpu_bound": entry.is_gpu_bound,
        "service_instances_per_gpu": entry.service_instances_per_gpu,
        "ports": list(entry.ports),
        "port_increment": entry.port_increment,
    }


def _connector_state(name: str, plugins: Plugins) -> str:
    if name in plugins.connectors:
        return "installed"
    if (offline := plugins.offline_for(name)) is not None:
        return f"the plugin {offline.name} is offline: {clean(offline.reason)}"
    return "not installed"


def _text(mapping: ServiceMapping, plugins: Plugins) -> str:
    workers = [
        (
            name,
            ", ".join(worker.services),
            ", ".join(dict.fromkeys(job for accepted in worker.accepts.values() for job in accepted)),
            "yes" if worker.is_gpu_bound else "no",
        )
        for name, worker in mapping.workers.items()
    ]
    entries = [
        (
            name,
            entry.connector,
            _connector_state(entry.connector, plugins),
            entry.type.value,
            ", ".join(map(str, entry.ports)),
        )
        for name, entry in mapping.services.items()
    ]
    parts = [
        f"Mapping: {'what the plugins bring' if mapping.source == 'plugins' else mapping.source}",
        table(("worker type", "services", "takes jobs for", "gpu"), workers),
        table(("service", "connector", "state", "type", "ports"), entries),
    ]
    parts += (f"Note: {clean(text)}" for text in mapping.notes)
    parts += (f"Unusable: {clean(p)}" for problems in mapping.unusable.values() for p in problems)
    return "\n\n".join(parts[:3]) + "".join(f"\n{line}" for line in parts[3:])
