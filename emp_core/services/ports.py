"""Which port each instance of a service listens on. Pure arithmetic: nothing is opened."""

from collections.abc import Mapping

from attrs import frozen

from emp_core.errors import ConfigError
from emp_core.services.schema import ServiceEntry

__all__ = ["PORT_MAX", "PortAssignment", "instance_port", "plan_ports"]

PORT_MAX = 65_535


@frozen
class PortAssignment:
    """A port of one instance.

    Attributes:
        gpu: the index of the instance's GPU; 0 for a service without one.
        instance: its number on that GPU, from 0.
        which: which of the service's ports it is, from 0.
    """

    service: str
    gpu: int
    instance: int
    which: int
    port: int

    def __str__(self) -> str:
        more = f", its port {self.which + 1}" if self.which else ""
        return f"{self.service} (GPU {self.gpu}, instance {self.instance}{more})"


def instance_port(base: int, *, gpu: int, instance: int, instances_per_gpu: int, increment: int) -> int:
    """``base + (gpu * instances_per_gpu + instance) * increment``.

    No two instances of a service share a port as long as ``instance < instances_per_gpu`` and ``increment`` is 1 or more.

    Raises:
        ConfigError: an argument makes no sense, or the port would not be between 1 and 65535.
    """
    problems = [
        *([f"gpu {gpu} is below 0"] if gpu < 0 else []),
        *([f"instances_per_gpu {instances_per_gpu} is below 1"] if instances_per_gpu < 1 else []),
        *([f"increment {increment} is below 1"] if increment < 1 else []),
        *([f"instance {instance} is not below {instances_per_gpu}"] if not 0 <= instance < instances_per_gpu else []),
    ]
    port = base + (gpu * instances_per_gpu + instance) * increment
    if not problems and not (base >= 1 and port <= PORT_MAX):
        problems.append(f"port {port} of GPU {gpu}, instance {instance} (base {base}) is not between 1 and {PORT_MAX}")
    if problems:
        raise ConfigError("no port can be given to the instance", problems=tuple(problems))
    return port


def plan_ports(services: Mapping[str, ServiceEntry], *, num_gpus: int) -> tuple[PortAssignment, ...]:
    """The ports of all instances of ``services`` on a machine with ``num_gpus`` GPUs, in the order of the services.

    A service that is bound to GPUs has ``service_instances_per_gpu`` instances on each; any other that runs on the machine
    has that many in all. Services that run elsewhere have no ports here.

    Raises:
        ConfigError: ports beyond 65535, or two instances on one port; lists all of them.
    """
    problems: list[str] = []
    planned: list[PortAssignment] = []
    for name, entry in services.items():
        if not entry.runs_here:
            continue
        gpus = num_gpus if entry.is_gpu_bound else 1
        for gpu in range(gpus):
            for instance in range(entry.service_instances_per_gpu):
                for which, base in enumerate(entry.ports):
                    try:
                        port = instance_port(
                            base,
                            gpu=gpu,
                            instance=instance,
                            instances_per_gpu=entry.service_instances_per_gpu,
                            increment=entry.port_increment,
                        )
                    except ConfigError as error:
                        problems += (f"{name}: {problem}" for problem in error.problems)
                    else:
                        planned.append(PortAssignment(name, gpu, instance, which, port))
    problems += _collisions(planned)
    if problems:
        raise ConfigError(
            "the services' ports cannot be given out",
            problems=tuple(problems),
            hint="change `ports` or `port_increment` in the service mapping, or the variables that they refer to",
        )
    return tuple(planned)


def _collisions(planned: list[PortAssignment]) -> list[str]:
    users: dict[int, list[PortAssignment]] = {}
    for one in planned:
        users.setdefault(one.port, []).append(one)
    return [
        f"port {port} is used by {' and by '.join(map(str, sharing))}"
        for port, sharing in sorted(users.items())
        if len(sharing) > 1
    ]
