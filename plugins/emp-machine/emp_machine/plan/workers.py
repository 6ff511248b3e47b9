"""The workers of a plan: one process each, led to its own instances."""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attrs import define, field

from emp_core.config import Settings, Variable, variables_of
from emp_core.plugins.loaded import Plugins
from emp_core.storage.azure_access import AzureSettings
from emp_core.storage.s3_access import S3Settings
from emp_machine.plan.model import Process, ProcessKind
from emp_machine.plan.placing import Placed
from emp_machine.plan.redis import REDIS
from emp_machine.plan.services import PlannedService, endpoint_of

__all__ = ["WorkerPlanner", "declared_variables", "for_installers", "handed_to_workers"]

_OURS = re.compile(r"EMP_[A-Z0-9_]+")
_STOP_MARGIN_S = 10.0
_OF_ONE_WORKER = ("WORKERS", "WORKER_ID", "GPU_ID")


def declared_variables(plugins: Plugins) -> tuple[Variable, ...]:
    """The variables that the core, its stores and plugins read."""
    classes = (Settings, AzureSettings, S3Settings, *plugins.settings_classes())
    return tuple(variable for one in classes for variable in variables_of(one))


def handed_to_workers(environ: Mapping[str, str], plugins: Plugins, further: Collection[str] = ()) -> dict[str, str]:
    """The variables that all workers get: settings of the core, of stores and of plugins, and ``further`` ones."""
    known = {name for one in declared_variables(plugins) for name in (one.name, *one.aliases)}
    return {
        name: value
        for name, value in sorted(environ.items())
        if value.strip() and (name in known or name in further or _OURS.fullmatch(name))
    }


def for_installers(environ: Mapping[str, str], plugins: Plugins) -> dict[str, str]:
    """The variables that installers get: all but the secrets of the core and of plugins. What they run is other people's
    code, such as the scripts of custom nodes.
    """
    classes = (Settings, *plugins.settings_classes())
    secret = {name for kind in classes for one in variables_of(kind) if one.secret for name in (one.name, *one.aliases)}
    return {name: value for name, value in environ.items() if name not in secret}


@define
class WorkerPlanner:
    """Plans workers one by one, and notes what is wrong with them.

    Attributes:
        shared: the variables that all workers get.
    """

    services: Mapping[str, PlannedService]
    settings: Settings
    shared: Mapping[str, str] = field(repr=False)
    root: Path
    problems: list[str]

    def processes(self, placed: Sequence[Placed]) -> tuple[Process, ...]:
        """The processes of the workers, in their order."""
        names = [self._name(worker, alone=len(placed) == 1) for worker in placed]
        folders = _folders(placed, names)
        return tuple(map(self._process, placed, names, folders))

    def _name(self, worker: Placed, *, alone: bool) -> str:
        """Its own; below ``WORKER_ID`` where that is set."""
        if self.settings.worker_id is None:
            return worker.name
        return self.settings.worker_id if alone else f"{self.settings.worker_id}-{worker.name}"

    def _process(self, worker: Placed, name: str, folder: Path) -> Process:
        own = {"WORKERS": worker.worker_type, "WORKER_ID": name, "MACHINE_ID": self.settings.machine_id}
        if worker.place.gpu is not None:
            own["GPU_ID"] = str(worker.place.gpu)
        shared = {key: value for key, value in self.shared.items() if key not in _OF_ONE_WORKER}
        needed = [self.services[service].process(where) for service, where in worker.instances.items()]
        return Process(
            name=f"worker-{name}",
            kind=ProcessKind.WORKER,
            argv=(sys.executable, "-m", "emp_core.cli", "worker"),
            cwd=self.root / folder,
            log=self.root / folder / "logs" / "output.log",
            environ={**shared, **self._led(worker, name), **own},
            worker_type=worker.worker_type,
            needs=tuple(process for process in needed if process is not None),
            gpu=worker.place.gpu,
            stop_s=self.settings.grace_s + _STOP_MARGIN_S,
            endpoint=", ".join(self._endpoints(worker)) or None,
        )

    def _led(self, worker: Placed, name: str) -> dict[str, str]:
        """What leads it to its instances."""
        found: dict[str, str] = {}
        for service, where in worker.instances.items():
            for key, value in self.services[service].leading(where).items():
                if found.setdefault(key, value) != value:
                    self.problems.append(
                        f"worker {name}: two of its services want {key}, as {found[key]} and as {value}; "
                        "give each a worker type of its own"
                    )
        return found

    def _endpoints(self, worker: Placed) -> list[str]:
        own = [
            self.services[service].instances[where] for service, where in worker.instances.items() if service != REDIS
        ]
        return [endpoint for one in own if (endpoint := endpoint_of(one)) is not None]


def _folders(placed: Sequence[Placed], names: Sequence[str]) -> list[Path]:
    """A folder for each: ``worker_gpu0`` for the first one of a GPU."""
    found: list[str] = []
    for worker, name in zip(placed, names, strict=True):
        first = f"worker_gpu{worker.place.gpu}"
        found.append(f"worker_{name}" if worker.place.gpu is None or first in found else first)
    return [Path(one) for one in found]
