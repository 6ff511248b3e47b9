"""Plans made from a mapping in the file format, and installers that start nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pluggy
import pytest
from attrs import field, frozen
from emp_machine.plan.model import GpuPlan, MachinePlan, Process
from emp_machine.plan.planning import plan_machine

from emp_core.errors import ConfigError
from emp_core.plugins.hookspecs import Registration
from emp_core.plugins.loaded import Plugins, Registered
from emp_core.services.installer import Installer, Step
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance
from emp_core.services.load import read_mapping

MAPPING: dict[str, Any] = {
    "workers": {
        "comfyui": {
            "services": ["comfyui"],
            "is_gpu_bound": True,
            "job_service_required_map": [{"job_service_required": "comfyui", "worker_service": "comfyui"}],
        },
        "ollama": {"services": ["ollama"]},
        "both": {"services": ["comfyui", "ollama"], "is_gpu_bound": True},
        "openai": {"services": ["openai"]},
        "remote": {"services": ["remote"], "is_gpu_bound": True},
        "theirs": {"services": ["theirs"]},
    },
    "services": {
        "comfyui": {
            "connector": "ComfyUIWebSocketConnector",
            "type": "pm2_service",
            "installer": "ComfyUIManagementClient",
            "is_gpu_bound": True,
            "service_instances_per_gpu": "${COMFYUI_INSTANCES_PER_GPU:-1}",
            "ports": ["${COMFYUI_BASE_PORT:-8188}"],
            "port_increment": "${COMFYUI_PORT_INCREMENT:-1}",
            "installer_config": {"repo_url": "${COMFYUI_REPO_URL:-https://github.com/stakeordie/ComfyUI.git}"},
        },
        "ollama": {
            "connector": "OllamaConnector",
            "type": "daemon_service",
            "installer": "OllamaDaemonInstaller",
            "ports": ["${OLLAMA_BASE_PORT:-11434}"],
        },
        "openai": {"connector": "OpenAIConnector", "type": "external_api"},
        "remote": {"connector": "ComfyUIWebSocketConnector", "type": "external_service"},
        "theirs": {"connector": "OllamaConnector", "type": "daemon_service", "ports": [11500]},
    },
}


class Started(Installer):
    """What it installs is there; an instance is started as the variable says."""

    program = "serve"

    def steps(self) -> Sequence[Step]:
        if self.config.environ.get("BAD_CONFIG") == self.config.name:
            raise ConfigError("the entry cannot be used", problems=("branch: no such branch", "models: no list"))
        return ()

    async def verify(self) -> None:
        return None

    def launch(self, instance: ServiceInstance) -> Launch | None:
        if instance.port is None:
            return None
        name = self.config.name.upper()
        return Launch(
            argv=(self.program, "--port", str(instance.port), "--listen", instance.host),
            cwd=self.folder,
            environ={"STATE": str(instance.state)},
            health=HealthCheck(f"http://{instance.host}:{instance.port}/", instance.port),
            worker_environ={f"{name}_HOST": instance.host, f"{name}_PORT": str(instance.port)},
            stop_s=5.0,
        )


class OnlyInstalled(Started):
    """Nothing is to be run for it."""

    def launch(self, instance: ServiceInstance) -> Launch | None:
        return None


class Redis(Started):
    """A Redis."""

    def launch(self, instance: ServiceInstance) -> Launch | None:
        return Launch(
            argv=("redis-server", "--port", str(instance.port)),
            cwd=instance.state,
            worker_environ={"HUB_REDIS_URL": f"redis://{instance.host}:{instance.port}"},
        )


class Broken(Started):
    """It has a mistake."""

    def launch(self, instance: ServiceInstance) -> Launch | None:
        raise KeyError("nothing")


INSTALLERS: Mapping[str, type] = {
    "ComfyUIManagementClient": Started,
    "OllamaDaemonInstaller": Started,
    "RedisDaemonInstaller": Redis,
    "OnlyInstalled": OnlyInstalled,
    "Broken": Broken,
    "NoInstaller": dict,
}
CONNECTORS = ("ComfyUIWebSocketConnector", "OllamaConnector", "OpenAIConnector")


@frozen
class HeldPlugins(Plugins):
    """Plugins whose classes are at hand."""

    classes: Mapping[str, Any] = field(factory=dict)

    def load_target(self, registered: Registered) -> Any:
        return self.classes[registered.registration.name]


@pytest.fixture
def plugins() -> Plugins:
    """Connectors and installers under the names of the mapping."""

    def registered(names: Sequence[str]) -> dict[str, Registered]:
        return {name: Registered("tests", Registration(name, f"tests:{name}")) for name in names}

    return HeldPlugins(
        loaded=(),
        offline=(),
        connectors=registered(CONNECTORS),
        installers=registered(tuple(INSTALLERS)),
        stores={},
        balancers={},
        spot_notices={},
        manager=pluggy.PluginManager("emp_core"),
        classes=INSTALLERS,
    )


class MakePlan(Protocol):
    """Makes a plan: variables, GPUs found, ports taken, further entries of the mapping."""

    def __call__(
        self,
        environ: Mapping[str, str],
        *,
        gpus: int = 2,
        gpu_trouble: Sequence[str] = (),
        taken: Mapping[int, str] | None = None,
        more: Mapping[str, Mapping[str, Any]] | None = None,
        handed_on: Sequence[str] = (),
    ) -> MachinePlan: ...


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the machine's folder would be."""
    return tmp_path_factory.mktemp("machine")


@pytest.fixture
def make_plan(plugins: Plugins, root: Path) -> MakePlan:
    """Plans from `MAPPING`; the machine is named ``box``."""

    def make(
        environ: Mapping[str, str],
        *,
        gpus: int = 2,
        gpu_trouble: Sequence[str] = (),
        taken: Mapping[int, str] | None = None,
        more: Mapping[str, Mapping[str, Any]] | None = None,
        handed_on: Sequence[str] = (),
    ) -> MachinePlan:
        told = {"MACHINE_ID": "box", "EMP_MACHINE_ROOT": str(root), **environ}
        document = {section: {**MAPPING.get(section, {}), **(more or {}).get(section, {})} for section in MAPPING}
        mapping = read_mapping(json.dumps(document), plugins, told, source="tests")
        found = [GpuPlan(index, "NVIDIA RTX 4090", 24_564) for index in range(gpus)]
        return plan_machine(
            mapping, plugins, told, found, gpu_trouble=gpu_trouble, taken=taken or {}, handed_on=handed_on
        )

    return make


def by_name(plan: MachinePlan) -> dict[str, Process]:
    """The processes of a plan by name."""
    return {one.name: one for one in plan.processes}
