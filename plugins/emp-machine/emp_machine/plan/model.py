"""The plan of a machine, as values. All else executes or renders it."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from attrs import field, frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.services.launch import HealthCheck, ServiceInstance
from emp_core.services.schema import ServiceEntry

__all__ = ["GpuPlan", "MachinePlan", "Process", "ProcessKind", "ServicePlan"]


class ProcessKind(StrEnum):
    """What a process is."""

    SERVICE = "service"
    WORKER = "worker"


@frozen
class GpuPlan:
    """A GPU of the machine.

    Attributes:
        model: None: the driver does not tell, or there is none.
        memory_mb: in MiB.
        mock: it is only pretended (``GPU_MODE=mock``).
        device: what the driver calls it, where that is another number: in a container that was given one GPU of several.
    """

    index: int
    model: str | None = None
    memory_mb: int | None = None
    mock: bool = False
    device: int | None = None

    @property
    def visible(self) -> str:
        """What ``CUDA_VISIBLE_DEVICES`` says for it."""
        return str(self.index if self.device is None else self.device)


@frozen
class ServicePlan:
    """A service that the machine's workers need.

    Attributes:
        installer: the registered name of its installer; None for a service that runs elsewhere, or that is there already.
        folder: where it is installed; its own.
        instances: what runs of it here; none of a service elsewhere.
    """

    name: str
    entry: ServiceEntry
    installer: str | None
    folder: Path
    config: ServiceConfig = field(repr=False)
    instances: tuple[ServiceInstance, ...] = ()


@frozen
class Process:
    """A process to keep running: an instance of a service, or a worker.

    Attributes:
        name: unique on the machine; process managers, status and logs call it so.
        service: of an instance, its service; of a worker, empty.
        argv: the program and its arguments; no shell reads them.
        environ: all its variables besides those that every process of the user has (PATH, HOME, …). May hold secrets.
        log: the file that takes its output.
        health: how to find out whether it works; None: that it lives is enough.
        needs: names of the processes that must be healthy before this one starts.
        gpu: index of the GPU that it sees; None: it is not bound to one.
        stop_s: how long it may take to end after SIGTERM; then it is killed.
        endpoint: of an instance, where it listens; of a worker, where its service is; None if neither is known.
    """

    name: str
    kind: ProcessKind
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    service: str = ""
    worker_type: str = ""
    health: HealthCheck | None = None
    needs: tuple[str, ...] = ()
    gpu: int | None = None
    stop_s: float = 10.0
    endpoint: str | None = None


@frozen
class MachinePlan:
    """What a machine is to run.

    Attributes:
        root: the folder that holds everything of the machine layer: services, workers, logs, state.
        services: in the order in which they are installed; services elsewhere included.
        processes: in the order in which they start: each stands after all that it needs.
        environ: the variables that the plan was made from and that its workers get: settings of the core and of
            plugins. May hold secrets.
        own_redis: whether its hub is a Redis that it runs itself.
        secrets: names of the variables, here and of processes, whose values are never shown.
        notes: what was accepted and has no effect, or another than it seems; a sentence each.
    """

    machine_id: str
    root: Path
    gpus: tuple[GpuPlan, ...]
    services: tuple[ServicePlan, ...]
    processes: tuple[Process, ...]
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    own_redis: bool = False
    secrets: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def instances(self) -> tuple[Process, ...]:
        """The processes that are instances of services."""
        return tuple(one for one in self.processes if one.kind is ProcessKind.SERVICE)

    @property
    def workers(self) -> tuple[Process, ...]:
        """The processes that are workers."""
        return tuple(one for one in self.processes if one.kind is ProcessKind.WORKER)
