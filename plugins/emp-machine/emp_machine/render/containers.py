"""What containers of a machine have in common, whoever runs them."""

import math
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from attrs import field, frozen

from emp_core.services.ports import instance_port
from emp_machine.plan.model import MachinePlan, Process, ServicePlan

__all__ = [
    "DATA",
    "GID",
    "HEALTHY",
    "MAPPING",
    "POOLS",
    "UID",
    "Container",
    "containers",
    "grace_s",
    "is_loopback",
    "target_of",
]

UID = GID = 10_001
DATA = "/data"
"""The only folder that is written to: services, models, outputs, logs, state."""

MAPPING = "/etc/emp/service-mapping.json"
POOLS: Mapping[str, str] = {
    "fast-lane": "comfyui,ollama",
    "standard-photography": "comfyui",
    "standard-art": "comfyui",
    "standard-product": "comfyui",
    "heavy": "comfyui",
}
"""Pools of machines for jobs of one length and kind, and the worker types that they run."""

HEALTHY = ("emp", "machine", "status", "--check")
"""Ends with 0 if everything in the container is as it should be."""

_OF_THE_IMAGE = frozenset(
    {"EMP_DATA_DIR", "EMP_MACHINE_HOST", "EMP_MACHINE_ROOT", "EMP_PROCESS_MANAGER", "EMP_SERVICE_MAPPING"}
)
_OF_THE_HOST = frozenset({"GPU_ID", "MACHINE_ID", "NUM_GPUS", "WORKERS", "WORKER_ID"})
_SPARE_S = 30


@frozen
class Container:
    """A container of a plan: one for all, or one for each GPU.

    Attributes:
        name: ``worker``, ``worker-gpu0``.
        workers: what ``WORKERS`` says in it.
        gpus: indexes of the host's GPUs that it gets; inside they count from 0.
        ports: (on the host, inside).
        environ: its variables, those with secrets left out.
        secrets: names of variables whose values come from elsewhere.
    """

    name: str
    machine_id: str
    workers: str
    gpus: tuple[int, ...]
    ports: tuple[tuple[int, int], ...]
    environ: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = ()


def containers(plan: MachinePlan, *, per_gpu: bool = False) -> tuple[Container, ...]:
    """The containers of a plan.

    Args:
        per_gpu: one for each GPU with the workers that are bound to it, and one for all others.
    """
    gpus = tuple(gpu.index for gpu in plan.gpus)
    if not per_gpu:
        asked = plan.environ.get("WORKERS", "")
        return (_container(plan, "worker", plan.machine_id, asked, gpus, plan.workers),)
    bound = [one for one in plan.workers if one.gpu is not None]
    free = [one for one in plan.workers if one.gpu is None]
    made = [
        _container(plan, f"worker-gpu{gpu}", f"{plan.machine_id}-gpu{gpu}", _types(own), (gpu,), own)
        for gpu in sorted({one.gpu for one in bound if one.gpu is not None})
        for own in [[one for one in bound if one.gpu == gpu]]
    ]
    if free:
        made.append(_container(plan, "worker", plan.machine_id, _types(free), (), free))
    return tuple(made)


def _container(
    plan: MachinePlan, name: str, machine_id: str, workers: str, gpus: tuple[int, ...], own: Sequence[Process]
) -> Container:
    shared = {key: value for key, value in plan.environ.items() if key not in _OF_THE_IMAGE | _OF_THE_HOST}
    if plan.own_redis:
        shared.pop("HUB_REDIS_URL", None)
    mock = any(gpu.mock for gpu in plan.gpus)
    environ = {
        "WORKERS": workers,
        "MACHINE_ID": machine_id,
        "NUM_GPUS": str(len(gpus)),
        **({"GPU_MODE": "mock"} if mock else {}),
        "EMP_MACHINE_HOST": "0.0.0.0",  # noqa: S104 - inside the container's own network
        **{key: value for key, value in sorted(shared.items()) if key not in plan.secrets},
    }
    secrets = tuple(sorted(key for key in shared if key in plan.secrets or key == "HUB_REDIS_URL"))
    environ.pop("HUB_REDIS_URL", None)
    needed = {need for worker in own for need in worker.needs}
    return Container(name, machine_id, workers, () if mock else gpus, _ports(plan, needed, gpus), environ, secrets)


def _types(workers: Sequence[Process]) -> str:
    return ",".join(dict.fromkeys(one.worker_type for one in workers))


def _ports(plan: MachinePlan, needed: set[str], gpus: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Ports on the host as the plan has them; inside, those of a machine whose GPUs count from 0."""
    found: list[tuple[int, int]] = []
    for service in plan.services:
        if plan.own_redis and service.name == "redis":
            continue
        for instance in service.instances:
            if instance.name in needed:
                inside = 0 if instance.gpu is None else gpus.index(instance.gpu)
                found += zip(instance.ports, _ports_on(service, inside, instance.number), strict=True)
    return tuple(sorted(found))


def _ports_on(service: ServicePlan, gpu: int, number: int) -> tuple[int, ...]:
    entry = service.entry
    each, step = entry.service_instances_per_gpu, entry.port_increment
    return tuple(
        instance_port(base, gpu=gpu, instance=number, instances_per_gpu=each, increment=step) for base in entry.ports
    )


def target_of(container: Container) -> str:
    """The stage of the Dockerfile that has what a container runs, and no more."""
    types = {word.partition(":")[0].strip() for word in container.workers.split(",")}
    for target, holds in (("comfyui", {"comfyui", "comfyui-remote"}), ("ollama", {"ollama"})):
        if types <= holds:
            return target
    return "common" if types & {"comfyui", "comfyui-remote", "ollama"} else "lightweight"


def grace_s(plan: MachinePlan) -> int:
    """How long a container may take to end: its workers drain first, then its services end."""
    workers = max((one.stop_s for one in plan.workers), default=0.0)
    services = max((one.stop_s for one in plan.instances), default=0.0)
    return math.ceil(workers + services) + _SPARE_S


def is_loopback(url: str) -> bool:
    """Whether a Redis's address means the machine that asks: in a container that is the container itself."""
    host = urlsplit(url.replace("+sentinel", "", 1).replace("+cluster", "", 1)).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"
