"""Which worker gets which instance of which service, on which GPU."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from emp_core.services.schema import ServiceEntry
from emp_machine.plan.wishes import Wish

__all__ = ["ALONE", "Place", "Placed", "place"]


@frozen(order=True)
class Place:
    """Where an instance or a worker is.

    Attributes:
        gpu: the index of its GPU; None: it is not bound to one.
        number: its number there, from 0.
    """

    gpu: int | None
    number: int

    def named(self, what: str) -> str:
        """``what`` with its place: ``comfyui-gpu0``, ``comfyui-gpu0-1``, ``ollama``, ``ollama-1``."""
        own = what if self.gpu is None else f"{what}-gpu{self.gpu}"
        return f"{own}-{self.number}" if self.number else own


ALONE = Place(None, 0)
"""The place of the only instance of a service that is not bound to GPUs."""


@frozen
class Placed:
    """A worker, and the instances that it works with.

    Attributes:
        instances: by service; those of services that run elsewhere have none.
    """

    worker_type: str
    place: Place
    instances: Mapping[str, Place]

    @property
    def name(self) -> str:
        """Its ``WORKER_ID``."""
        return self.place.named(self.worker_type)


def place(wish: Wish, gpus: Sequence[int], problems: list[str], notes: list[str]) -> tuple[Placed, ...]:
    """The workers of a wish, by GPU.

    A worker whose services are bound to GPUs has an instance of its own of each. Instances that are not bound to GPUs are
    shared out among the workers in turn.

    Args:
        gpus: the indexes of the GPUs that may be used.
    """
    places = _places(wish, gpus)
    if wish.count is not None and not wish.on_gpus:
        places = [Place(None, number) for number in range(wish.count)]
    elif wish.count is not None and wish.count > len(places):
        problems.append(_too_few(wish, gpus, len(places)))
    elif not places and wish.auto:
        notes.append(f"{wish.worker_type}:auto gives no worker: this machine has no GPU")
    elif not places:
        problems.append(_too_few(wish, gpus, 0))
    # Fewer than there is room for go to different GPUs first.
    chosen = sorted(places, key=lambda one: (one.number, one.gpu or 0))[: wish.count]
    return tuple(
        Placed(wish.worker_type, one, _instances(wish, one, at))
        for at, one in enumerate(sorted(chosen, key=lambda one: (one.gpu or 0, one.number)))
    )


def _places(wish: Wish, gpus: Sequence[int]) -> list[Place]:
    if wish.on_gpus:
        each = max(entry.service_instances_per_gpu for entry in wish.on_gpus.values())
        return [Place(gpu, number) for gpu in gpus for number in range(each)]
    if wish.auto and wish.is_gpu_bound:
        return [Place(gpu, 0) for gpu in gpus]
    instances = max((entry.service_instances_per_gpu for entry in wish.here.values()), default=1)
    return [Place(None, number) for number in range(instances)]


def _instances(wish: Wish, worker: Place, at: int) -> dict[str, Place]:
    return {name: _instance(entry, worker, at) for name, entry in wish.here.items()}


def _instance(entry: ServiceEntry, worker: Place, at: int) -> Place:
    if entry.is_gpu_bound:
        return Place(worker.gpu, worker.number % entry.service_instances_per_gpu)
    return Place(None, at % entry.service_instances_per_gpu)


def _too_few(wish: Wish, gpus: Sequence[int], room: int) -> str:
    services = ", ".join(f"{name} on {entry.service_instances_per_gpu} per GPU" for name, entry in wish.on_gpus.items())
    wanted = f"{wish.count} workers" if wish.count else "a worker"
    if not gpus:
        return f"WORKERS asks for {wanted} of {wish.worker_type!r}, which needs a GPU, and none is found here (NUM_GPUS, GPU_MODE)"
    return (
        f"WORKERS asks for {wanted} of {wish.worker_type!r}, and {len(gpus)} GPUs have room for {room} "
        f"({services}); ask for fewer, or for all with {wish.worker_type}:auto"
    )
