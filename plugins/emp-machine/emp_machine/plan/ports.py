"""Which port each instance listens on, and whether it can."""

from collections.abc import Collection, Mapping, Sequence

from emp_core.errors import ConfigError
from emp_core.services.ports import PORT_MAX, instance_port
from emp_core.services.schema import ServiceEntry
from emp_machine.plan.placing import Place

__all__ = ["Ports", "assign_ports", "free_port"]

Ports = Mapping[tuple[str, Place], tuple[int, ...]]
"""By service and place of the instance: its ports, in the order of the mapping."""


def assign_ports(
    entries: Mapping[str, ServiceEntry],
    needed: Mapping[str, Sequence[Place]],
    taken: Mapping[int, str],
    problems: list[str],
) -> Ports:
    """The ports of the instances that are needed: base + (GPU x instances per GPU + number) x increment."""
    ports = {
        (service, where): _ports(service, entries[service], where, problems)
        for service, places in needed.items()
        for where in places
    }
    users: dict[int, list[str]] = {}
    for (service, where), own in ports.items():
        for port in own:
            users.setdefault(port, []).append(where.named(service))
            # What has no installer is somebody else's, and listens there already.
            if port in taken and entries[service].installer is not None:
                problems.append(f"port {port} of {where.named(service)} is taken by {taken[port]}")
    problems += (
        f"port {port} is used by {' and by '.join(names)}; change `ports` or `port_increment` in the service mapping, or the "
        "variables that they refer to"
        for port, names in sorted(users.items())
        if len(names) > 1
    )
    return ports


def _ports(service: str, entry: ServiceEntry, where: Place, problems: list[str]) -> tuple[int, ...]:
    found: list[int] = []
    for base in entry.ports:
        try:
            found.append(
                instance_port(
                    base,
                    gpu=where.gpu or 0,
                    instance=where.number,
                    instances_per_gpu=entry.service_instances_per_gpu,
                    increment=entry.port_increment,
                )
            )
        except ConfigError as error:
            problems += (f"{where.named(service)}: {problem}" for problem in error.problems)
    return tuple(found)


def free_port(first: int, taken: Collection[int]) -> int | None:
    """The first port from ``first`` on that is not taken; None: there is none."""
    return next((port for port in range(first, PORT_MAX + 1) if port not in taken), None)
