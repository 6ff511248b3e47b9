"""What WORKERS asks of a machine: worker types, how many of each, and the services that they need."""

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Plugins
from emp_core.services.resolve import WorkerPlan, resolve_workers
from emp_core.services.schema import ServiceEntry, ServiceMapping

__all__ = ["Wish", "wishes"]

_ALL = "auto"


@frozen
class Wish:
    """Workers of one type that are wanted.

    Attributes:
        services: all services that belong to the type, those without jobs of their own included.
        count: how many; None: one for each instance of its services.
        auto: as many as the machine gives, which may be none.
    """

    worker_type: str
    is_gpu_bound: bool
    services: Mapping[str, ServiceEntry]
    count: int | None = None
    auto: bool = False

    @property
    def here(self) -> dict[str, ServiceEntry]:
        """The services that run on the machine."""
        return {name: entry for name, entry in self.services.items() if entry.runs_here}

    @property
    def on_gpus(self) -> dict[str, ServiceEntry]:
        """Those that are bound to GPUs."""
        return {name: entry for name, entry in self.here.items() if entry.is_gpu_bound}


def wishes(
    workers: Sequence[str], mapping: ServiceMapping, plugins: Plugins, environ: Mapping[str, str], problems: list[str]
) -> tuple[Wish, ...]:
    """What ``WORKERS`` asks for, a wish for each worker type: ``one``, ``one:2`` or ``one:auto``.

    Types that are named twice are asked for together.
    """
    found: dict[str, Wish] = {}
    for item in workers or ("",):
        try:
            # One by one: a mistake in one item does not hide what is wrong with the others.
            plan, *_ = resolve_workers([_without_auto(item)] if item else (), mapping, plugins, environ)
        except ConfigError as error:
            problems += error.problems or (error.message,)
            continue
        wish = _wish(item, plan, mapping)
        found[wish.worker_type] = _together(found.get(wish.worker_type), wish)
    return tuple(found.values())


def _wish(item: str, plan: WorkerPlan, mapping: ServiceMapping) -> Wish:
    _, count = _counted(item)
    number = int(count) if count and count != _ALL else None
    return Wish(plan.worker_type, plan.is_gpu_bound, _services(plan, mapping), number, auto=count == _ALL)


def _together(one: Wish | None, other: Wish) -> Wish:
    if one is None:
        return other
    count = None if one.count is None or other.count is None else one.count + other.count
    return evolve(one, count=count, auto=one.auto and other.auto)


def _counted(item: str) -> tuple[str, str]:
    name, _, count = item.partition(":")
    return name.strip(), count.strip().lower()


def _without_auto(item: str) -> str:
    name, count = _counted(item)
    return name if count == _ALL else item


def _services(plan: WorkerPlan, mapping: ServiceMapping) -> dict[str, ServiceEntry]:
    bound = {binding.service: binding.entry for binding in plan.services}
    worker = mapping.workers.get(plan.worker_type)
    further = worker.services if worker is not None else ()
    return {**{name: mapping.services[name] for name in further if name in mapping.services}, **bound}
