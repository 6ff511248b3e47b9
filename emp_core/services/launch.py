"""How an instance of a service is started on a machine, as values. Nothing here starts anything."""

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

__all__ = ["HealthCheck", "Launch", "ServiceInstance"]

_LOOPBACK = "127.0.0.1"
_ALL = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


@frozen
class ServiceInstance:
    """One instance of a service, as the plan of a machine has it.

    Attributes:
        name: its name, unique on the machine: ``comfyui-gpu0``; ``comfyui-gpu0-1`` for the second on that GPU.
        service: the service's name in the mapping.
        gpu: index of the GPU that it gets to see; None: it is not bound to one.
        number: its number on that GPU, from 0; for a service without GPUs its number among all.
        host: the address that it must listen on.
        ports: its ports, in the order of the mapping.
        folder: where its service is installed. All instances of a service share it.
        state: a folder of its own, for what two instances must not write at the same place.
    """

    name: str
    service: str
    gpu: int | None
    number: int
    host: str
    ports: tuple[int, ...]
    folder: Path
    state: Path

    @property
    def port(self) -> int | None:
        """The first of its ports, if it has any."""
        return self.ports[0] if self.ports else None

    @property
    def reached_at(self) -> str:
        """Its host in URLs of this machine: loopback where it listens on all addresses; in brackets by IPv6."""
        host = _LOOPBACK if self.host in _ALL else self.host
        return f"[{host}]" if ":" in host else host


@frozen
class HealthCheck:
    """How to find out whether an instance works.

    Attributes:
        url: answers GET with a status below 400 when all is well; None: that ``port`` takes connections is enough.
        port: on the instance's host.
        start_s: how long it may take until it answers for the first time.
        every_s: how often to look after that.
        timeout_s: how long one answer may take.
    """

    url: str | None
    port: int
    start_s: float = 120.0
    every_s: float = 10.0
    timeout_s: float = 5.0


@frozen
class Launch:
    """What to run for an instance.

    Attributes:
        argv: the program and its arguments; no shell reads them.
        cwd: where it runs.
        environ: variables besides those of the machine layer. It sees its GPU by those already.
        health: how to find out whether it works; None: that its process lives is enough.
        worker_environ: variables that lead a worker to this instance: ``COMFYUI_HOST``, ``COMFYUI_PORT``.
        stop_s: how long it may take to end after SIGTERM.
    """

    argv: tuple[str, ...]
    cwd: Path
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    health: HealthCheck | None = None
    worker_environ: Mapping[str, str] = field(factory=dict, repr=False)
    stop_s: float = 10.0
