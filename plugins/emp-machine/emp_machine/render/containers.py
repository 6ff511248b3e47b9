"""What containers of a machine have in common, whoever runs them."""

import math
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from emp_core.services.ports import instance_port
from emp_machine.plan.model import MachinePlan, Process, ServicePlan
from emp_machine.plan.redis import REDIS

__all__ = [
    "DATA",
    "FILES",
    "GID",
    "HEALTHY",
    "POOLS",
    "UID",
    "Container",
    "containers",
    "grace_s",
    "is_loopback",
    "pod",
    "target_of",
]

UID = GID = 10_001
DATA = "/data"
"""The only folder that is written to: services, models, outputs, logs, state."""

FILES: Mapping[str, str] = {
    "EMP_SERVICE_MAPPING": "/etc/emp/service-mapping.json",
    "COMFYUI_MODELS": "/etc/emp/models.json",
    "COMFYUI_CUSTOM_NODES": "/etc/emp/custom-nodes.json",
}
"""Variables that name a file of the host, and where a container has it."""

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

_OF_THE_IMAGE = frozenset({"EMP_DATA_DIR", "EMP_MACHINE_HOST", "EMP_MACHINE_ROOT", "EMP_PROCESS_MANAGER"})
_OF_THE_HOST = frozenset(
    {"CUDA_VISIBLE_DEVICES", "GPU_ID", "MACHINE_ID", "NUM_GPUS", "NVIDIA_VISIBLE_DEVICES", "WORKERS", "WORKER_ID"}
)
_SPARE_S = 30


@frozen
class Container:
    """A container of a plan: one for all, or one for each GPU.

    Attributes:
        name: ``worker``, ``worker-gpu0``.
        workers: what ``WORKERS`` says in it.
        gpus: indexes of the host's GPUs that it gets to see; inside they count from 0.
        ports: (on the host, inside).
        environ: its variables, those with secrets left out.
        secrets: names of variables whose values come from elsewhere.
        files: files of the host, by the variables of `FILES` that name them.
    """

    name: str
    machine_id: str
    workers: str
    gpus: tuple[int, ...]
    ports: tuple[tuple[int, int], ...]
    environ: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = ()
    files: Mapping[str, str] = field(factory=dict)


def containers(plan: MachinePlan, *, per_gpu: bool = False) -> tuple[Container, ...]:
    """The containers of a plan.

    Args:
        per_gpu: one for each GPU with the workers that are bound to it, and one for all others. What is bound to no GPU uses
            all of them, as it does without containers.
    """
    gpus = tuple(gpu.index for gpu in plan.gpus)
    if not per_gpu:
        asked = plan.environ.get("WORKERS", "")
        return (_container(plan, "worker", plan.machine_id, asked, gpus, plan.workers),)
    made = [
        _container(plan, f"worker-gpu{gpu}", f"{plan.machine_id}-gpu{gpu}", _asked(plan, own), (gpu,), own)
        for gpu, own in _bound(plan).items()
    ]
    free = _free(plan)
    if free:
        alone = _container(plan, "worker", plan.machine_id, _asked(plan, free), (), free)
        made.append(evolve(alone, gpus=_seen(plan, gpus)) if any(_services(plan, one) for one in free) else alone)
    # What each has an instance of in its own container is reached by the same port on the host once only.
    taken: set[int] = set()
    for at, one in enumerate(made):
        made[at] = evolve(one, ports=tuple(ports for ports in one.ports if ports[0] not in taken))
        taken |= {host for host, _ in one.ports}
    return tuple(made)


def pod(plan: MachinePlan) -> Container:
    """One machine of many: the workers of one GPU, if there are any, and those that are bound to none."""
    bound = _bound(plan)
    gpus = tuple(bound)[:1]
    own = [*(one for gpu in gpus for one in bound[gpu]), *_free(plan)]
    made = _container(plan, "worker", plan.machine_id, _asked(plan, own), gpus, own)
    if not gpus and any(_services(plan, one) for one in own):
        return evolve(made, gpus=_seen(plan, tuple(gpu.index for gpu in plan.gpus))[:1])
    return made


def _bound(plan: MachinePlan) -> dict[int, list[Process]]:
    """The workers of each GPU that has some."""
    gpus = sorted({one.gpu for one in plan.workers if one.gpu is not None})
    return {gpu: [one for one in plan.workers if one.gpu == gpu] for gpu in gpus}


def _free(plan: MachinePlan) -> list[Process]:
    return [one for one in plan.workers if one.gpu is None]


def _services(plan: MachinePlan, worker: Process) -> list[str]:
    """The instances that a worker works with, but for the machine's own Redis."""
    return [name for name in worker.needs if not (plan.own_redis and name == REDIS)]


def _seen(plan: MachinePlan, gpus: tuple[int, ...]) -> tuple[int, ...]:
    """The GPUs, as far as there are any to ask for."""
    return () if any(gpu.mock for gpu in plan.gpus) else gpus


def _container(
    plan: MachinePlan, name: str, machine_id: str, workers: str, gpus: tuple[int, ...], own: Sequence[Process]
) -> Container:
    shared = {key: value for key, value in plan.environ.items() if key not in _OF_THE_IMAGE | _OF_THE_HOST}
    if plan.own_redis:
        shared.pop("HUB_REDIS_URL", None)
    files = {name: shared.pop(name) for name in FILES if shared.get(name)}
    environ = {
        "WORKERS": workers,
        "MACHINE_ID": machine_id,
        "NUM_GPUS": str(len(gpus)),
        **({"GPU_MODE": "mock"} if any(gpu.mock for gpu in plan.gpus) else {}),
        "EMP_MACHINE_HOST": "0.0.0.0",  # noqa: S104 - inside the container's own network
        **{key: value for key, value in sorted(shared.items()) if key not in plan.secrets},
        **{name: FILES[name] for name in files},
    }
    secrets = tuple(sorted(key for key in shared if key in plan.secrets or key == "HUB_REDIS_URL"))
    environ.pop("HUB_REDIS_URL", None)
    needed = {need for worker in own for need in worker.needs}
    return Container(name, machine_id, workers, _seen(plan, gpus), _ports(plan, needed, gpus), environ, secrets, files)


def _asked(plan: MachinePlan, workers: Sequence[Process]) -> str:
    """What ``WORKERS`` says for so many of them."""
    bound = {instance.name for instance in plan.instances if instance.gpu is not None}
    found: dict[str, str] = {}
    for worker_type in dict.fromkeys(one.worker_type for one in workers):
        own = [one for one in workers if one.worker_type == worker_type]
        # One that is bound to a GPU without an instance there is placed so by `auto` alone.
        by_auto = own[0].gpu is not None and not bound & {name for one in own for name in one.needs}
        found[worker_type] = "auto" if by_auto else str(len(own))
    return ",".join(f"{worker_type}:{count}" for worker_type, count in found.items())


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
    """The stage of the Dockerfile that has what a container runs, and no more; its pool's, where ``EMP_POOL`` names one."""
    types = {word.partition(":")[0].strip() for word in container.workers.split(",")}
    pool = container.environ.get("EMP_POOL", "")
    if pool in POOLS and types <= set(POOLS[pool].split(",")):
        return pool
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
