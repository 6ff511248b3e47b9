"""Instances: how many, where, on which ports, and what they see."""

from pathlib import Path
from typing import Any

import pytest

from emp_core.errors import ConfigError

from .conftest import MakePlan, by_name


def endpoints(made) -> dict[str, str | None]:
    return {one.name: one.endpoint for one in made.instances}


def test_two_gpus_give_two_instances_of_a_service_that_is_bound_to_them_and_one_of_another(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui,ollama", "HUB_REDIS_URL": "redis://hub"})
    assert endpoints(made) == {
        "comfyui-gpu0": "127.0.0.1:8188",
        "comfyui-gpu1": "127.0.0.1:8189",
        "ollama": "127.0.0.1:11434",
    }
    assert [one.name for one in made.workers] == ["worker-comfyui-gpu0", "worker-comfyui-gpu1", "worker-ollama"]


def test_several_instances_on_each_gpu_have_ports_of_their_own(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui", "COMFYUI_INSTANCES_PER_GPU": "2", "HUB_REDIS_URL": "redis://hub"})
    assert endpoints(made) == {
        "comfyui-gpu0": "127.0.0.1:8188",
        "comfyui-gpu0-1": "127.0.0.1:8189",
        "comfyui-gpu1": "127.0.0.1:8190",
        "comfyui-gpu1-1": "127.0.0.1:8191",
    }
    assert {one.environ["WORKER_ID"] for one in made.workers} == endpoints(made).keys()


def test_an_instance_sees_its_own_gpu_and_no_other(make_plan: MakePlan) -> None:
    made = by_name(make_plan({"WORKERS": "comfyui,ollama"}))
    for gpu in ("0", "1"):
        environ = made[f"comfyui-gpu{gpu}"].environ
        assert environ["CUDA_VISIBLE_DEVICES"] == environ["GPU_INDEX"] == gpu
        assert environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert environ["COMFYUI_PORT"] == str(8188 + int(gpu))
    assert "CUDA_VISIBLE_DEVICES" not in made["ollama"].environ


def test_instances_share_the_folder_of_their_service_and_have_a_state_and_a_log_of_their_own(
    make_plan: MakePlan, root: Path
) -> None:
    made = make_plan({"WORKERS": "comfyui", "HUB_REDIS_URL": "redis://hub"})
    (service,) = made.services
    assert service.folder == root / "services" / "comfyui"
    assert {one.folder for one in service.instances} == {service.folder}
    assert [one.state for one in service.instances] == [root / "state" / f"comfyui-gpu{gpu}" for gpu in (0, 1)]
    assert [one.log for one in made.instances] == [root / "logs" / f"comfyui-gpu{gpu}.log" for gpu in (0, 1)]
    assert made.instances[0].environ["STATE"] == str(root / "state" / "comfyui-gpu0")


def test_services_listen_on_this_machine_alone_unless_told_otherwise(make_plan: MakePlan) -> None:
    shown = make_plan({"WORKERS": "comfyui", "EMP_MACHINE_HOST": "0.0.0.0"})  # noqa: S104 - what a test asks for
    assert endpoints(shown)["comfyui-gpu0"] == "0.0.0.0:8188"
    assert endpoints(shown)["redis"] == "127.0.0.1:6379"
    assert shown.notes == ("services listen on 0.0.0.0: whoever reaches this machine there can use them",)
    inside = make_plan({"WORKERS": "comfyui", "EMP_MACHINE_HOST": "::1"})
    assert endpoints(inside)["comfyui-gpu0"] == "[::1]:8188"
    assert inside.notes == ()


def test_a_service_elsewhere_is_neither_installed_nor_given_ports(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "openai,remote", "HUB_REDIS_URL": "redis://hub"}, gpus=0)
    assert [(one.name, one.installer, one.instances) for one in made.services] == [
        ("openai", None, ()),
        ("remote", None, ()),
    ]
    assert [one.name for one in made.processes] == ["worker-openai", "worker-remote"]


def test_a_service_without_an_installer_is_taken_to_run_and_its_port_may_be_taken(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "theirs", "HUB_REDIS_URL": "redis://hub"}, taken={11500: "ollama (process 12)"})
    assert made.instances == ()
    assert made.workers[0].needs == ()
    assert any("theirs has no installer" in note for note in made.notes)


def test_a_service_that_is_there_when_it_is_installed_has_no_process(make_plan: MakePlan) -> None:
    more: dict[str, Any] = {
        "workers": {"tool": {"services": ["tool"]}},
        "services": {"tool": {"connector": "OllamaConnector", "type": "daemon_service", "installer": "OnlyInstalled"}},
    }
    made = make_plan({"WORKERS": "tool", "HUB_REDIS_URL": "redis://hub"}, more=more)
    assert [one.installer for one in made.services] == ["OnlyInstalled"]
    assert [(one.name, one.needs) for one in made.processes] == [("worker-tool", ())]


def test_services_without_jobs_of_their_own_are_started_for_their_workers_too(make_plan: MakePlan) -> None:
    more: dict[str, Any] = {
        "workers": {
            "comfyui": {
                "services": ["ollama", "comfyui"],
                "job_service_required_map": [{"job_service_required": "comfyui", "worker_service": "comfyui"}],
            }
        }
    }
    made = make_plan({"WORKERS": "comfyui", "HUB_REDIS_URL": "redis://hub"}, more=more)
    assert endpoints(made).keys() == {"ollama", "comfyui-gpu0", "comfyui-gpu1"}
    assert set(made.workers[0].needs) == {"ollama", "comfyui-gpu0"}


# -- the machine's own Redis ---------------------------------------------------------------------------------------


def test_a_machine_without_a_hub_gets_a_redis_of_its_own_before_everything_else(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui,openai"})
    assert made.services[0].name == made.processes[0].name == "redis"
    assert made.services[0].installer == "RedisDaemonInstaller"
    for worker in made.workers:
        assert worker.environ["HUB_REDIS_URL"] == "redis://127.0.0.1:6379"
        assert worker.needs[0] == "redis"
    assert made.environ["HUB_REDIS_URL"] == "redis://127.0.0.1:6379"
    assert [one.endpoint for one in made.workers] == ["127.0.0.1:8188", "127.0.0.1:8189", None]


def test_the_machines_own_redis_goes_out_of_the_way_of_strangers_and_of_other_services(make_plan: MakePlan) -> None:
    environ = {"WORKERS": "ollama", "OLLAMA_BASE_PORT": "6380"}
    made = make_plan(environ, taken={6379: "redis-server (process 1)"})
    assert endpoints(made) == {"redis": "127.0.0.1:6381", "ollama": "127.0.0.1:6380"}


def test_a_redis_in_the_mapping_is_the_machines_own(make_plan: MakePlan) -> None:
    redis = {
        "connector": "OllamaConnector",
        "type": "daemon_service",
        "installer": "OllamaDaemonInstaller",
        "ports": [7000],
    }
    made = make_plan({"WORKERS": "openai"}, more={"services": {"redis": redis}})
    assert endpoints(made) == {"redis": "127.0.0.1:7000"}
    assert made.workers[0].environ["HUB_REDIS_URL"] == "redis://127.0.0.1:7000"


def test_a_redis_that_a_worker_type_names_is_there_once(make_plan: MakePlan) -> None:
    redis = {
        "connector": "OllamaConnector",
        "type": "daemon_service",
        "installer": "RedisDaemonInstaller",
        "ports": [7000],
    }
    more: dict[str, Any] = {"services": {"redis": redis}, "workers": {"cache": {"services": ["redis"]}}}
    made = make_plan({"WORKERS": "cache,openai"}, more=more)
    assert endpoints(made) == {"redis": "127.0.0.1:7000"}
    assert {one.environ["HUB_REDIS_URL"] for one in made.workers} == {"redis://127.0.0.1:7000"}


def test_a_hub_that_is_named_is_used_and_none_is_started(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "ollama", "HUB_REDIS_URL": "redis://u:pw@hub:6379/1"})
    assert endpoints(made).keys() == {"ollama"}
    assert made.workers[0].environ["HUB_REDIS_URL"] == "redis://u:pw@hub:6379/1"
    with pytest.raises(ConfigError, match="EMP_MACHINE_REDIS_PORT"):
        make_plan({"WORKERS": "ollama", "EMP_MACHINE_REDIS_PORT": "0"})
