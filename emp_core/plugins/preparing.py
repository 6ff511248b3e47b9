"""What plugins do to a job before it goes into the queue: check its payload, fill in defaults and what the payload requires."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Self

from anyio import to_thread
from attrs import evolve

from emp_core.config import Settings, environment
from emp_core.connectors.base import Connector
from emp_core.connectors.payloads import payload_reader
from emp_core.errors import EmpError, InvalidJob, PluginError
from emp_core.jobs.model import JobSpec
from emp_core.log.logger import Logger, get_logger
from emp_core.plugins.loaded import Plugins
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.offline import offline_connector, offline_reason
from emp_core.services.load import load_mapping
from emp_core.services.schema import ServiceMapping

__all__ = ["Preparer", "connectors_for", "installed_preparer", "payload_classes"]

_log: Logger = get_logger("emp.plugins")

_KNOWN_MOST = 1000

Step = Callable[[JobSpec], JobSpec]


class Preparer:
    """Prepares jobs by the connectors that may run them, as far as they are known here.

    The connectors of a service are looked up once. A job for a service that has none here goes as it is: its payload is
    checked by the worker. Where a service has several, the first one that takes the payload prepares the job.

    Args:
        connectors_of: the connectors that may run jobs for a service; called in a thread, because it may import them.
    """

    def __init__(self, connectors_of: Callable[[str], Sequence[type[Connector]]]) -> None:
        self._connectors_of = connectors_of
        self._steps: dict[str, tuple[Step, ...]] = {}
        """By service: what those connectors do that have something to say about its jobs."""

    @classmethod
    def of(cls, connectors: Mapping[str, type[Connector]]) -> Self:
        """A preparer for connectors that are given by what jobs require."""
        return cls(lambda service: [connectors[service]] if service in connectors else [])

    async def prepare(self, specs: Sequence[JobSpec]) -> Sequence[JobSpec]:
        """The specs as they go into the queue.

        Raises:
            InvalidJob: a payload does not fit, or no worker could run the job; lists every mistake with its path.
            PluginError: a connector failed in preparing a job.
        """
        if len(self._steps) > _KNOWN_MOST:
            self._steps = {}
        steps = self._steps
        for spec in specs:
            if not isinstance(spec.service_required, str):  # what users pass is not always what the annotations say
                return specs
            if spec.service_required not in steps:
                steps[spec.service_required] = await self._look_up(spec.service_required)
        return [_taken(spec, found) if (found := steps[spec.service_required]) else spec for spec in specs]

    async def _look_up(self, service: str) -> tuple[Step, ...]:
        connectors = await to_thread.run_sync(self._connectors_of, service)
        says = [connector for connector in connectors if _says_something(connector, service)]
        steps: list[Step] = [partial(_prepared, connector) for connector in says]
        if steps and len(says) < len(connectors):
            steps.append(_as_it_is)  # one of them takes anything
        return tuple(steps)


def _as_it_is(spec: JobSpec) -> JobSpec:
    return spec


def _taken(spec: JobSpec, steps: Sequence[Step]) -> JobSpec:
    """The spec as the first connector that takes it prepares it."""
    refusals: list[InvalidJob] = []
    for step in steps:
        try:
            return step(spec)
        except InvalidJob as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _prepared(connector: type[Connector], spec: JobSpec) -> JobSpec:
    connector.payload_of(spec)
    try:
        prepared = connector.prepare_job(spec)
    except EmpError:
        raise
    except Exception as error:  # a plugin may raise anything, and what it says may repeat the payload
        raise _failed(connector, f"raised {type(error).__name__}") from error
    if not isinstance(prepared, JobSpec):
        raise _failed(connector, f"gave {type(prepared).__name__} instead of a JobSpec")
    if prepared.payload is not spec.payload:
        try:
            connector.payload_of(prepared)
        except InvalidJob as error:
            raise _failed(connector, f"gave a payload that does not fit its class: {error.message}") from error
    return prepared


def _failed(connector: type[Connector], what: str) -> PluginError:
    return PluginError(
        f"{connector.__module__}.{connector.__qualname__}.prepare_job {what}",
        hint="tell the plugin's authors; without preparing, the job can be submitted: JobQueue.connect(prepare=False)",
    )


def _says_something(connector: type[Connector], service: str) -> bool:
    """Whether it has a payload class that can be used, or prepares jobs."""
    try:
        if (kind := connector.payload_class_of(service)) is not None:
            payload_reader(kind)
            return True
    except PluginError as error:
        _log.warning("payloads are not checked at submit", service=service, reason=error.message)
        return False
    return getattr(connector.prepare_job, "__func__", None) is not getattr(Connector.prepare_job, "__func__", None)


def connectors_for(service: str, plugins: Plugins, mapping: ServiceMapping) -> list[type[Connector]]:
    """The connectors that jobs for a service are given to, imported now. One that is not here says nothing of its jobs."""
    names = [
        mapping.services[own].connector
        for worker in mapping.workers.values()
        for own, accepted in worker.accepts.items()
        if service in accepted and own in mapping.services
    ]
    found: list[type[Connector]] = []
    for name in dict.fromkeys(names):
        if name in plugins.connectors or plugins.offline_for(name) is not None:
            found.append(plugins.connector_class(name))
            if (reason := offline_reason(found[-1])) is not None:
                _log.warning("payloads are not checked at submit", service=service, connector=name, reason=reason)
        else:
            found.append(offline_connector(name, "no installed plugin has it"))
    return found


def payload_classes(service: str, connectors: Sequence[type[Connector]]) -> list[type] | None:
    """The classes that payloads of jobs for a service must fit, one of them; None: one of its connectors takes anything."""
    classes = [connector.payload_class_of(service) for connector in connectors]
    return None if None in classes or not classes else [kind for kind in dict.fromkeys(classes) if kind is not None]


class _Installed:
    """The connectors of this installation, with its plugins loaded when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._loaded: tuple[Plugins, ServiceMapping] | None = None

    def __call__(self, service: str) -> list[type[Connector]]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return connectors_for(service, *self._loaded)

    def _load(self) -> tuple[Plugins, ServiceMapping]:
        plugins = load_plugins(())
        try:
            plugins = load_plugins()
            return plugins, load_mapping(self._settings, plugins, environment())
        except EmpError as error:  # workers say it, too, and cannot do without; a submitter can
            _log.warning("payloads are not checked at submit", reason=str(error))
            return plugins, ServiceMapping()


def installed_preparer(settings: Settings) -> Preparer:
    """The preparer of what is installed here, one per service mapping and process."""
    return _preparer_of(settings.service_mapping)


@lru_cache(maxsize=8)
def _preparer_of(service_mapping: Path | None) -> Preparer:
    return Preparer(_Installed(evolve(Settings(), service_mapping=service_mapping)))
