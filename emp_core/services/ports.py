"""Which port each instance of a service listens on. Pure arithmetic: nothing is opened."""

from emp_core.errors import ConfigError

__all__ = ["PORT_MAX", "instance_port"]

PORT_MAX = 65_535


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
