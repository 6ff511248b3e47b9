"""What WORKERS asks of a machine: worker types, how many of each, and the services that they need."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Plugins
from emp_core.services.resolve import WorkerPlan, resolve_workers
from emp_core.services.schema import ServiceEntry, ServiceMapping

__all__ = ["ALL", "Wish", "wishes"]

ALL = "auto"
"""What stands behind the colon of an item of WORKERS that asks for as many workers as the machine can give."""


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
    try:
        plans = resolve_workers([_without_auto(item) for item in workers], mapping, plugins, environ)
    except ConfigError as error:
        problems += error.problems or (error.message,)
        return ()
    found: dict[str, Wish] = {}
    by_type = {plan.worker_type: plan for plan in plans}
    for item in workers:
        name, count = _counted(item)
        wish = found.get(name)
        auto = count == ALL
        number = int(count) if count and not auto else None
        if wish is not None:
            auto = auto and wish.auto
            number = None if number is None or wish.count is None else wish.count + number
        plan = by_type[name]
        found[name] = Wish(name, plan.is_gpu_bound, _services(plan, mapping), number, auto)
    return tuple(found.values())


def _counted(item: str) -> tuple[str, str]:
    name, _, count = item.partition(":")
    return name.strip(), count.strip().lower()


def _without_auto(item: str) -> str:
    name, count = _counted(item)
    return name if count == ALL else item


def _services(plan: WorkerPlan, mapping: ServiceMapping) -> dict[str, ServiceEntry]:
    bound = {binding.service: binding.entry for binding in plan.services}
    worker = mapping.workers.get(plan.worker_type)
    further = worker.services if worker is not None else ()
    return {**{name: mapping.services[name] for name in further if name in mapping.services}, **bound}
