"""The Redis of a machine that is told of no other."""

from collections.abc import Collection

from attrs import evolve

from emp_core.services.schema import ServiceEntry, ServiceMapping, ServiceType
from emp_machine.plan.ports import free_port
from emp_machine.settings import MachineSettings

__all__ = ["REDIS", "REDIS_HOST", "own_redis"]

REDIS = "redis"
"""The service's name. An entry of this name in the service mapping is used, if it can run on the machine."""

REDIS_HOST = "127.0.0.1"
"""It listens nowhere else, whatever the other services do."""

_INSTALLER = "RedisDaemonInstaller"


def own_redis(mapping: ServiceMapping, machine: MachineSettings, taken: Collection[int]) -> ServiceEntry:
    """The service, on the first port that is free."""
    entry = mapping.services.get(REDIS)
    if entry is None or not entry.runs_here or entry.installer is None:
        entry = ServiceEntry(connector="", type=ServiceType.DAEMON, installer=_INSTALLER, ports=(machine.redis_port,))
    first = entry.ports[0] if entry.ports else machine.redis_port
    port = free_port(first, taken)
    return evolve(entry, is_gpu_bound=False, ports=(first if port is None else port,))
