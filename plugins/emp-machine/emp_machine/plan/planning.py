"""From the service mapping, WORKERS and the GPUs to the plan of a machine. Pure: the same in gives the same out."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from attrs import evolve

from emp_core.config import Settings, load_settings
from emp_core.errors import ConfigError
from emp_core.plugins.loaded import Plugins
from emp_core.queue.addresses import parse_address
from emp_core.services.schema import ServiceEntry, ServiceMapping
from emp_machine.gpus import usable_gpus
from emp_machine.plan.aliases import with_aliases
from emp_machine.plan.model import GpuPlan, MachinePlan, Process
from emp_machine.plan.placing import ALONE, Place, Placed, place
from emp_machine.plan.ports import assign_ports
from emp_machine.plan.redis import REDIS, own_redis
from emp_machine.plan.secrets import secret_names
from emp_machine.plan.services import PlannedService, ServicePlanner
from emp_machine.plan.wishes import wishes
from emp_machine.plan.workers import WorkerPlanner, declared_variables, for_installers, handed_to_workers
from emp_machine.settings import MachineSettings, root_of

__all__ = ["plan_machine"]

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHOWN_MAX = 80
_NOTHING: Mapping[int, str] = {}


def plan_machine(
    mapping: ServiceMapping,
    plugins: Plugins,
    environ: Mapping[str, str],
    gpus: Sequence[GpuPlan],
    *,
    gpu_trouble: Sequence[str] = (),
    taken: Mapping[int, str] = _NOTHING,
    handed_on: Collection[str] = (),
) -> MachinePlan:
    """What a machine is to run.

    Args:
        mapping: the services, and the worker types that serve them.
        environ: the settings: ``WORKERS``, ``NUM_GPUS``, ``HUB_REDIS_URL`` and all the others.
        gpus: those that were found, by index.
        gpu_trouble: what is wrong with their driver, a sentence each.
        taken: ports that others than this machine's own processes listen on, and who they are.
        handed_on: variables of ``environ`` that workers get besides the settings of the core and of plugins.

    Raises:
        ConfigError: this machine cannot run what is asked of it; lists every reason.
    """
    environ, notes_on_aliases = with_aliases(environ)
    problems: list[str] = []
    notes = list(notes_on_aliases)
    settings = _read(Settings, environ, problems)
    machine = _read(MachineSettings, environ, problems)
    root = root_of(settings, machine)

    problems += _unusable_hub(settings)
    if machine.host not in _LOOPBACK:
        notes.append(f"services listen on {machine.host}: whoever reaches this machine there can use them")
    wished = wishes(settings.workers, mapping, plugins, environ, problems)
    usable = usable_gpus(settings, machine, environ, gpus, gpu_trouble, problems, notes)
    indexes = [gpu.index for gpu in usable]
    placed = [worker for wish in wished for worker in place(wish, indexes, problems, notes)]
    entries = {name: entry for wish in wished for name, entry in wish.services.items()}
    needed = _needed(placed, entries)
    ports = assign_ports(entries, needed, taken, problems)

    if settings.redis_url is None and REDIS not in needed:
        # Everybody needs it: it is installed and started first.
        entries = {
            REDIS: own_redis(mapping, machine, {*taken, *(port for own in ports.values() for port in own)}),
            **entries,
        }
        needed = {REDIS: [ALONE], **needed}
        ports = {(REDIS, ALONE): entries[REDIS].ports, **ports}
    if settings.redis_url is None:
        placed = [evolve(worker, instances={REDIS: ALONE, **worker.instances}) for worker in placed]

    by_index = {gpu.index: gpu for gpu in usable}
    installers_environ = for_installers(environ, plugins)
    planner = ServicePlanner(plugins, installers_environ, by_index, root, machine.host, problems, notes)
    services = {name: planner.service(name, entry, needed.get(name, ()), ports) for name, entry in entries.items()}
    shared = handed_to_workers(environ, plugins, handed_on)
    if settings.redis_url is None:
        shared |= services[REDIS].leading(ALONE)
    if machine.gpu_mode == "mock":
        shared.setdefault("NUM_GPUS", str(len(usable)))  # what the driver would tell
    workers = WorkerPlanner(services, settings, shared, root, problems).processes(placed)
    processes = (*(one for service in services.values() for one in planner.processes(service)), *workers)

    problems += _unusable_settings(plugins, services.values(), environ)
    problems += _unusable_names(services, workers, processes)
    if not placed and not problems:
        problems.append("no worker is left to run")
    if problems:
        if not usable and any(wish.on_gpus for wish in wished):
            problems += gpu_trouble
        raise ConfigError(
            f"this machine cannot run WORKERS={','.join(settings.workers)}", problems=tuple(dict.fromkeys(problems))
        )
    return MachinePlan(
        machine_id=settings.machine_id,
        root=root,
        gpus=usable,
        services=tuple(service.plan for service in services.values()),
        processes=processes,
        environ=shared,
        own_redis=settings.redis_url is None,
        secrets=secret_names((shared, *(one.environ for one in processes)), declared_variables(plugins)),
        notes=tuple(dict.fromkeys((*notes, *mapping.notes))),
    )


def _read(settings_class: type[T], environ: Mapping[str, str], problems: list[str]) -> T:
    """The settings; where some cannot be read, what the others say, so that all that is wrong is found at once."""
    try:
        return load_settings(settings_class, environ)
    except ConfigError as error:
        problems += error.problems
        wrong = tuple(problem.partition("=")[0] for problem in error.problems)
        return load_settings(settings_class, {name: value for name, value in environ.items() if name not in wrong})


def _unusable_hub(settings: Settings) -> tuple[str, ...]:
    try:
        if settings.redis_url is not None:
            parse_address(settings.redis_url)
    except ConfigError as error:
        return tuple(f"HUB_REDIS_URL: {problem}" for problem in error.problems or (error.message,))
    return ()


def _needed(placed: Sequence[Placed], entries: Mapping[str, ServiceEntry]) -> dict[str, list[Place]]:
    """The instances that workers work with, by service, each once."""
    found = {name: {worker.instances[name] for worker in placed if name in worker.instances} for name in entries}
    return {
        name: sorted(places, key=lambda one: (one.gpu or 0, one.number)) for name, places in found.items() if places
    }


def _unusable_settings(
    plugins: Plugins, services: Iterable[PlannedService], environ: Mapping[str, str]
) -> Iterator[str]:
    """What is wrong with the settings of plugins that are used here; what they bring would not start with them."""
    entries = [service.plan.entry for service in services]
    used = {plugins.connectors[one.connector].plugin for one in entries if one.connector in plugins.connectors}
    names = [one.installer for one in entries if one.installer is not None]
    used |= {plugins.installers[name].plugin for name in names if name in plugins.installers}
    for plugin in plugins.loaded:
        if plugin.name not in used:
            continue
        for settings_class in plugin.answers.settings:
            try:
                load_settings(settings_class, environ)
            except ConfigError as error:
                yield from error.problems


def _unusable_names(services: Iterable[str], workers: Iterable[Process], processes: Sequence[Process]) -> Iterator[str]:
    """Names become folders, and names in the files of process managers."""
    for what, name in (*(("service", name) for name in services), *(("worker", one.name) for one in workers)):
        if not _NAME.fullmatch(name):
            yield (
                f"the {what} {name[:_SHOWN_MAX]!r} cannot be run here: a name has up to 64 letters, digits, dots, dashes and "
                "underscores, and begins with a letter or digit"
            )
    names = [one.name for one in processes]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two processes would be named {name!r}; rename a service or worker type in the service mapping"
