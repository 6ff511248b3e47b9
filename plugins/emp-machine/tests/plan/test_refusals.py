"""Plans that cannot be: every reason is told, and all of them at once."""

from typing import Any

import pytest

from emp_core.errors import ConfigError

from .conftest import MakePlan

HUB = {"HUB_REDIS_URL": "redis://hub"}


def refused(make_plan: MakePlan, environ: dict[str, str], **more: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        make_plan({**HUB, **environ}, **more)
    return caught.value.problems


def service(**entry: Any) -> dict[str, Any]:
    base = {"connector": "OllamaConnector", "type": "daemon_service", "installer": "OllamaDaemonInstaller"}
    return {"workers": {"tool": {"services": ["tool"]}}, "services": {"tool": {**base, **entry}}}


def test_a_port_that_a_stranger_listens_on_is_refused_by_his_name(make_plan: MakePlan) -> None:
    problems = refused(make_plan, {"WORKERS": "comfyui,ollama"}, taken={8189: "nginx (process 42)", 80: "nginx"})
    assert problems == ("port 8189 of comfyui-gpu1 is taken by nginx (process 42)",)


def test_more_workers_than_the_gpus_have_room_for_are_refused(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "comfyui:5", "COMFYUI_INSTANCES_PER_GPU": "2"})
    assert "5 workers of 'comfyui', and 2 GPUs have room for 4" in problem


@pytest.mark.parametrize("workers", ["comfyui", "comfyui:1"])
def test_a_service_that_is_bound_to_gpus_is_refused_without_one(make_plan: MakePlan, workers: str) -> None:
    (problem,) = refused(make_plan, {"WORKERS": workers}, gpus=0)
    assert "needs a GPU, and none is found here" in problem


def test_a_plan_of_nothing_is_refused(make_plan: MakePlan) -> None:
    assert refused(make_plan, {"WORKERS": "comfyui:auto"}, gpus=0) == ("no worker is left to run",)
    (problem,) = refused(make_plan, {"WORKERS": ""})
    assert "WORKERS is empty" in problem


def test_an_unknown_worker_type_is_refused_with_the_one_that_is_near(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "comfyiu"})
    assert "did you mean 'comfyui'?" in problem


@pytest.mark.parametrize("workers", ["comfyui:x", "comfyui:0", "comfyui:"])
def test_a_count_that_is_none_is_refused(make_plan: MakePlan, workers: str) -> None:
    (problem,) = refused(make_plan, {"WORKERS": workers})
    assert "expected a whole number" in problem


def test_an_unknown_installer_is_refused_with_those_that_are_known(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "tool"}, more=service(installer="OllamaDaemonInstalle"))
    assert "no installed plugin has the installer 'OllamaDaemonInstalle'" in problem
    assert "did you mean 'OllamaDaemonInstaller'?" in problem


def test_what_is_registered_and_is_no_installer_is_refused(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "tool"}, more=service(installer="NoInstaller"))
    assert "NoInstaller of the plugin tests is no subclass of Installer" in problem


def test_an_installer_that_breaks_is_a_reason_like_others(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "tool"}, more=service(installer="Broken"))
    assert problem == "tool: Broken of the plugin tests failed: KeyError: 'nothing'"


def test_what_an_installer_has_against_its_entry_is_told(make_plan: MakePlan) -> None:
    problems = refused(make_plan, {"WORKERS": "comfyui", "BAD_CONFIG": "comfyui"})
    assert problems == ("comfyui: branch: no such branch", "comfyui: models: no list")


def test_two_services_on_one_port_are_refused(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "comfyui,ollama", "OLLAMA_BASE_PORT": "8189"})
    assert problem.startswith("port 8189 is used by comfyui-gpu1 and by ollama")


def test_two_ports_of_a_service_may_not_overlap_with_those_of_its_next_instance(make_plan: MakePlan) -> None:
    more = service(ports=[9000, 9001], service_instances_per_gpu=2)
    (problem,) = refused(make_plan, {"WORKERS": "tool"}, more=more)
    assert problem.startswith("port 9001 is used by tool and by tool-1")
    made = make_plan(
        {"WORKERS": "tool", **HUB}, more=service(ports=[9000, 9001], service_instances_per_gpu=2, port_increment=2)
    )
    assert [one.ports for one in made.services[0].instances] == [(9000, 9001), (9002, 9003)]


def test_instances_that_are_not_started_take_no_ports(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui:1,ollama", "OLLAMA_BASE_PORT": "8189", **HUB})
    assert [one.endpoint for one in made.instances] == ["127.0.0.1:8188", "127.0.0.1:8189"]


def test_a_port_beyond_the_last_is_refused(make_plan: MakePlan) -> None:
    (problem,) = refused(make_plan, {"WORKERS": "comfyui", "COMFYUI_BASE_PORT": "65535"})
    assert problem.startswith("comfyui-gpu1: port 65536")


@pytest.mark.parametrize("name", ["../../etc", "a b", "a/b", "-x", "x" * 65, "naïve"])
def test_a_name_that_can_be_no_folder_is_refused(make_plan: MakePlan, name: str) -> None:
    entry = {"connector": "OllamaConnector", "type": "daemon_service", "installer": "OllamaDaemonInstaller"}
    more = {"workers": {"tool": {"services": [name]}}, "services": {name: entry}}
    assert any("cannot be run here" in problem for problem in refused(make_plan, {"WORKERS": "tool"}, more=more))


def test_an_instance_and_a_worker_of_one_name_are_refused(make_plan: MakePlan) -> None:
    entry = {
        "connector": "OllamaConnector",
        "type": "daemon_service",
        "installer": "OllamaDaemonInstaller",
        "ports": [1],
    }
    more = {
        "workers": {"tool": {"services": ["worker-openai"]}},
        "services": {"worker-openai": entry},
    }
    problems = refused(make_plan, {"WORKERS": "tool,openai"}, more=more)
    assert any("two processes would be named 'worker-openai'" in problem for problem in problems)


def test_services_that_lead_a_worker_to_two_places_by_one_variable_are_refused(make_plan: MakePlan) -> None:
    clashing = {
        "connector": "OllamaConnector",
        "type": "daemon_service",
        "installer": "OllamaDaemonInstaller",
        "ports": [9],
    }
    more = {
        "workers": {"tool": {"services": ["OLLAMA", "ollama"]}},
        "services": {"OLLAMA": clashing},
    }
    problems = refused(make_plan, {"WORKERS": "tool"}, more=more)
    assert any("two of its services want OLLAMA_PORT, as 9 and as 11434" in problem for problem in problems)


def test_all_reasons_are_told_at_once(make_plan: MakePlan) -> None:
    environ = {
        "WORKERS": "comfyui:3,ollama,nothing,tool,openai:x",
        "HUB_REDIS_URL": "http://hub",
        "EMP_GRACE_S": "soon",
        "GPU_MODE": "cardboard",
        "OLLAMA_BASE_PORT": "8188",
    }
    problems = refused(make_plan, environ, taken={8189: "nginx"}, more=service(installer="None"))
    told = "\n".join(problems)
    for reason in ("EMP_GRACE_S='soon'", "GPU_MODE='cardboard'", "have room for 2", "port 8188 is used by"):
        assert reason in told
    assert "port 8189 of comfyui-gpu1 is taken by nginx" in told
    assert "'nothing': no worker type of this name" in told
    assert "'openai:x': expected a whole number" in told
    assert "HUB_REDIS_URL: " in told
    assert "no installed plugin has the installer 'None'" in told


def test_a_secret_is_not_told_with_the_reason(make_plan: MakePlan) -> None:
    problems = refused(make_plan, {"WORKERS": "openai", "EMP_STORES": "hunter2"})
    assert "hunter2" not in str(problems)
    assert "EMP_STORES=(hidden)" in str(problems)


def test_a_hub_that_cannot_be_read_is_refused_without_its_password(make_plan: MakePlan) -> None:
    problems = refused(make_plan, {"WORKERS": "openai", "HUB_REDIS_URL": "http://me:hunter2@hub"})
    assert len(problems) == 1
    assert problems[0].startswith("HUB_REDIS_URL: ")
    assert "hunter2" not in problems[0]
