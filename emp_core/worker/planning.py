"""What workers a process runs: their names, their services, how many jobs at once, and where artifacts go."""

import os
from collections.abc import Mapping, Sequence

from attrs import frozen

from emp_core.config import Settings, whole
from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Plugins
from emp_core.services.resolve import ServiceBinding, load_mapping, resolve_workers
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.opening import StoreOpener

__all__ = ["PlannedWorker", "capacity_of", "planned_workers", "store_openers"]


@frozen
class PlannedWorker:
    """A worker to be made.

    Attributes:
        name: its ``WORKER_ID``.
        bindings: the services that it speaks to.
    """

    name: str
    bindings: tuple[ServiceBinding, ...]


def planned_workers(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> list[PlannedWorker]:
    """The workers that ``WORKERS`` asks for: each has all services of its worker types.

    Raises:
        ConfigError: the mapping or ``WORKERS`` cannot be used.
    """
    mapping = load_mapping(settings, plugins, environ)
    plans = resolve_workers(settings.workers, mapping, plugins, environ)
    count = max(plan.index for plan in plans) + 1
    workers = []
    for index in range(count):
        own = [plan for plan in plans if plan.index == index]
        bindings = {binding.service: binding for plan in own for binding in plan.services}
        name = _worker_name(settings, [plan.worker_type for plan in own], index, count)
        workers.append(PlannedWorker(name, tuple(bindings.values())))
    return workers


def _worker_name(settings: Settings, types: Sequence[str], index: int, count: int) -> str:
    numbered = f"-{index}" if count > 1 else ""
    if settings.worker_id:
        return f"{settings.worker_id}{numbered}"
    own = f"gpu{settings.gpu_id}" if settings.gpu_id is not None else str(os.getpid())
    return f"{'-'.join(dict.fromkeys(types))}-{own}{numbered}"


_COUNT = whole(1, 100_000)


def capacity_of(settings: Settings, service: str) -> int | None:
    """Jobs at once on a service, if the operator said.

    Raises:
        ConfigError: ``EMP_CONCURRENCY`` cannot be used.
    """
    capacity: int | None = None
    for item in settings.concurrency:
        name, equals, count = item.rpartition("=")
        if equals and name.strip() != service:
            continue
        try:
            capacity = _COUNT(count)
        except ValueError:
            raise ConfigError(
                f"EMP_CONCURRENCY has {item[:80]!r}", hint="write a number, or service=number, from 1 to 100000"
            ) from None
    return capacity


def store_openers(plugins: Plugins) -> dict[str, StoreOpener]:
    """What makes the plugins' artifact stores, by scheme."""
    return {scheme: _opener(plugins, scheme) for scheme in plugins.stores}


def _opener(plugins: Plugins, scheme: str) -> StoreOpener:
    def opener(url: str, environ: Mapping[str, str]) -> ArtifactStore:
        store: ArtifactStore = plugins.load_target(plugins.stores[scheme])(url, environ)
        return store

    return opener
