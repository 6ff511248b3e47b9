"""The service mapping as values: worker types, services and connectors, by name.

The file's format is the one of ``service-mapping.json``: objects ``workers``, ``services`` and ``connectors``.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen

__all__ = ["ConnectorEntry", "ServiceEntry", "ServiceMapping", "ServiceRoute", "ServiceType", "WorkerType"]


class ServiceType(StrEnum):
    """How a service runs."""

    PM2 = "pm2_service"
    DAEMON = "daemon_service"
    EXTERNAL_API = "external_api"
    EXTERNAL = "external_service"

    @property
    def runs_here(self) -> bool:
        """Whether it runs on the worker's machine, with ports and an installer; the others run elsewhere."""
        return self in (ServiceType.PM2, ServiceType.DAEMON)


@frozen
class ServiceRoute:
    """An item of ``job_service_required_map``: jobs that require the one go to the worker's other."""

    job_service_required: str
    worker_service: str


@frozen
class WorkerType:
    """An entry of ``workers``.

    Attributes:
        services: the services that belong to the worker, those without jobs of their own included.
        routes: which jobs go to which of them.
    """

    services: tuple[str, ...]
    is_gpu_bound: bool = False
    routes: tuple[ServiceRoute, ...] = ()

    @property
    def accepts(self) -> dict[str, tuple[str, ...]]:
        """By worker service: what jobs may require to be given to it. Only services with jobs are in it."""
        found: dict[str, tuple[str, ...]] = {}
        for route in self.routes:
            accepted = (*found.get(route.worker_service, ()), route.job_service_required)
            found[route.worker_service] = tuple(dict.fromkeys(accepted))
        return found


@frozen
class ServiceEntry:
    """An entry of ``services``.

    Attributes:
        connector: the registered name of the connector that speaks to it.
        installer: the registered name of the installer.
        installer_filename: accepted for older files; never loaded.
        service_instances_per_gpu: instances on each GPU, or in all when it is not bound to GPUs.
        ports: base ports of its first instance.
        port_increment: distance between the ports of two instances.
        installer_config: for the installer, as it stands in the mapping.
        extra: keys that the core does not know, for the connector.
    """

    connector: str
    type: ServiceType
    installer: str | None = None
    installer_filename: str | None = None
    is_gpu_bound: bool = False
    service_instances_per_gpu: int = 1
    ports: tuple[int, ...] = ()
    port_increment: int = 1
    installer_config: Mapping[str, Any] = field(factory=dict, repr=False)
    extra: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def runs_here(self) -> bool:
        """Whether it runs on the worker's machine."""
        return self.type.runs_here

    @property
    def options(self) -> dict[str, Any]:
        """What the connector is told: ``installer_config``, and the keys that the core does not know."""
        return {**self.extra, **({"installer_config": dict(self.installer_config)} if self.installer_config else {})}


@frozen
class ConnectorEntry:
    """An entry of ``connectors``: a description. Connectors themselves come from plugins.

    Attributes:
        path: accepted for older files; never loaded.
    """

    path: str = ""
    description: str = ""


@frozen
class ServiceMapping:
    """Which services there are, and which worker types serve them.

    Attributes:
        source: where it comes from: the file's path, or ``plugins``.
        notes: what was accepted and has no effect, each with its path.
        unusable: entries of plugins that cannot be used and why, by path (``services.x``); only an error for who needs them.
    """

    workers: Mapping[str, WorkerType] = field(factory=dict)
    services: Mapping[str, ServiceEntry] = field(factory=dict)
    connectors: Mapping[str, ConnectorEntry] = field(factory=dict)
    source: str = "plugins"
    notes: tuple[str, ...] = ()
    unusable: Mapping[str, tuple[str, ...]] = field(factory=dict)
