"""The services of a plan: what installs each, and what is run for each of its instances."""

import re
from collections.abc import Mapping, Sequence
from inspect import isabstract
from pathlib import Path

from attrs import define, field, frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, PluginError
from emp_core.log.redaction import hide_secrets
from emp_core.plugins.loaded import Plugins, known_names
from emp_core.services.installer import Installer
from emp_core.services.launch import Launch, ServiceInstance
from emp_core.services.schema import ServiceEntry
from emp_machine.plan.model import GpuPlan, Process, ProcessKind, ServicePlan
from emp_machine.plan.placing import Place
from emp_machine.plan.ports import Ports
from emp_machine.plan.redis import REDIS, REDIS_HOST

__all__ = ["PlannedService", "ServicePlanner", "endpoint_of"]

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
        return PlannedService(plan, instances, self._launches(plan, entry.installer, instances))

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

    def _launches(
        self, plan: ServicePlan, installer: str, instances: Mapping[Place, ServiceInstance]
    ) -> dict[Place, Launch]:
        """What is run for each instance. The installer's own mistakes are reasons against the plan like all others."""
        registered = self.plugins.installers.get(installer)
        if registered is None:
            known = known_names(installer, self.plugins.installers)
            self.problems.append(f"{plan.name}: no installed plugin has the installer {installer!r}; {known}")
            return {}
        brought = f"{installer} of the plugin {registered.plugin}"
        try:
            found = self.plugins.load_target(registered)
            if not (isinstance(found, type) and issubclass(found, Installer)) or isabstract(found):
                self.problems.append(f"{plan.name}: {brought} is no subclass of Installer that can be made")
                return {}
            made = found(plan.config, plan.folder)
            made.steps()
            launches = {where: made.launch(instance) for where, instance in instances.items()}
        except ConfigError as error:
            self.problems += (f"{plan.name}: {problem}" for problem in error.problems or (str(error),))
            return {}
        except PluginError as error:
            self.problems.append(f"{plan.name}: {error}")
            return {}
        except Exception as error:  # an installer is a plugin's code, which may raise anything
            self.problems.append(f"{plan.name}: {brought} failed: {hide_secrets(f'{type(error).__name__}: {error}')}")
            return {}
        return {where: launch for where, launch in launches.items() if launch is not None}

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
            endpoint=endpoint_of(instance),
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


def endpoint_of(instance: ServiceInstance) -> str | None:
    """Where an instance listens: ``127.0.0.1:8188``."""
    if instance.port is None:
        return None
    host = f"[{instance.host}]" if ":" in instance.host else instance.host
    return f"{host}:{instance.port}"


def _port_variable(service: str) -> str:
    return f"{_NOT_IN_A_VARIABLE.sub('_', service).upper()}_PORT"
