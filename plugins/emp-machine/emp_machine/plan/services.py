"""The services of a plan: what installs each, and what is run for each of its instances."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, PluginError
from emp_core.plugins.loaded import Plugins, known_names
from emp_core.services.installer import Installer
from emp_core.services.launch import Launch, ServiceInstance
from emp_core.services.schema import ServiceEntry
from emp_machine.plan.model import GpuPlan, Process, ProcessKind, ServicePlan
from emp_machine.plan.placing import Place
from emp_machine.plan.ports import Ports
from emp_machine.plan.redis import REDIS, REDIS_HOST

__all__ = ["PlannedService", "ServicePlanner"]

_NOT_IN_A_VARIABLE = re.compile(r"[^A-Za-z0-9]+")


@frozen
class PlannedService:
    """A service, and what is run of it here.

    Attributes:
        launches: by place of the instance; empty where nothing is run.
    """

    plan: ServicePlan
    instances: Mapping[Place, ServiceInstance]
    launches: Mapping[Place, Launch] = field(factory=dict)

    def process(self, where: Place) -> str | None:
        """The name of the instance's process, if it has one."""
        return self.instances[where].name if where in self.launches else None

    def leading(self, where: Place) -> dict[str, str]:
        """The variables that lead a worker to an instance."""
        if where not in self.launches:
            return {}
        own = dict(self.launches[where].worker_environ)
        if self.plan.name == REDIS:
            own.setdefault("HUB_REDIS_URL", f"redis://{REDIS_HOST}:{self.instances[where].port}")
        return own


@define
class ServicePlanner:
    """Plans services one by one, and notes what is wrong with them."""

    plugins: Plugins
    environ: Mapping[str, str] = field(repr=False)
    gpus: Mapping[int, GpuPlan]
    root: Path
    host: str
    problems: list[str]
    notes: list[str]

    def service(self, name: str, entry: ServiceEntry, places: Sequence[Place], ports: Ports) -> PlannedService:
        """A service with its instances at ``places``."""
        config = ServiceConfig(name, self.environ, entry.options)
        folder = self.root / "services" / name
        if not entry.runs_here:
            return PlannedService(ServicePlan(name, entry, None, folder, config), {})
        instances = {where: self._instance(name, where, ports[name, where], folder) for where in places}
        plan = ServicePlan(name, entry, entry.installer, folder, config, tuple(instances.values()))
        if entry.installer is None:
            self.notes.append(f"{name} has no installer: it is taken to be there, and is neither installed nor started")
            return PlannedService(plan, instances)
        installer = self._installer(plan, entry.installer)
        launches = {} if installer is None else self._launches(installer, instances)
        return PlannedService(plan, instances, launches)

    def _instance(self, service: str, where: Place, ports: tuple[int, ...], folder: Path) -> ServiceInstance:
        name = where.named(service)
        return ServiceInstance(
            name=name,
            service=service,
            gpu=where.gpu,
            number=where.number,
            host=REDIS_HOST if service == REDIS else self.host,
            ports=ports,
            folder=folder,
            state=self.root / "state" / name,
        )

    def _installer(self, plan: ServicePlan, name: str) -> Installer | None:
        registered = self.plugins.installers.get(name)
        if registered is None:
            known = known_names(name, self.plugins.installers)
            self.problems.append(f"{plan.name}: no installed plugin has the installer {name!r}; {known}")
            return None
        try:
            made = self.plugins.load_target(registered)(plan.config, plan.folder)
        except PluginError as error:
            self.problems.append(f"{plan.name}: {error}")
            return None
        if not isinstance(made, Installer):
            self.problems.append(
                f"{plan.name}: {name} of the plugin {registered.plugin} is not a subclass of Installer"
            )
            return None
        return made

    def _launches(self, installer: Installer, instances: Mapping[Place, ServiceInstance]) -> dict[Place, Launch]:
        found: dict[Place, Launch] = {}
        try:
            installer.steps()
            for where, instance in instances.items():
                if (launch := installer.launch(instance)) is not None:
                    found[where] = launch
        except ConfigError as error:
            service = installer.config.name
            self.problems += (f"{service}: {problem}" for problem in error.problems or (str(error),))
        return found

    def processes(self, service: PlannedService) -> tuple[Process, ...]:
        """What is run of a service."""
        return tuple(
            self._process(service.instances[where], launch, service.plan) for where, launch in service.launches.items()
        )

    def _process(self, instance: ServiceInstance, launch: Launch, plan: ServicePlan) -> Process:
        environ = {
            **self._gpu_variables(instance),
            **({} if instance.port is None else {_port_variable(plan.name): str(instance.port)}),
            **launch.environ,
        }
        return Process(
            name=instance.name,
            kind=ProcessKind.SERVICE,
            argv=launch.argv,
            cwd=launch.cwd,
            log=self.root / "logs" / f"{instance.name}.log",
            environ=environ,
            service=plan.name,
            health=launch.health,
            gpu=instance.gpu,
            stop_s=launch.stop_s,
            endpoint=None if instance.port is None else f"{instance.host}:{instance.port}",
        )

    def _gpu_variables(self, instance: ServiceInstance) -> dict[str, str]:
        if instance.gpu is None:
            return {}
        return {
            "CUDA_VISIBLE_DEVICES": self.gpus[instance.gpu].visible,
            # By default CUDA counts the fastest GPU first, and the driver, whose indexes these are, by bus.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "GPU_INDEX": str(instance.gpu),
        }


def _port_variable(service: str) -> str:
    return f"{_NOT_IN_A_VARIABLE.sub('_', service).upper()}_PORT"
