"""Workers: how many, what each works with, and what it is told."""

from pathlib import Path

import pytest
from emp_machine.plan.model import MachinePlan

from .conftest import MakePlan, by_name

HUB = {"HUB_REDIS_URL": "redis://hub"}


def ids(made: MachinePlan) -> list[str]:
    return [one.environ["WORKER_ID"] for one in made.workers]


def test_each_worker_is_led_to_its_own_instance_and_starts_after_it(make_plan: MakePlan) -> None:
    made = by_name(make_plan({"WORKERS": "comfyui,ollama", **HUB}))
    for gpu in ("0", "1"):
        worker = made[f"worker-comfyui-gpu{gpu}"]
        assert worker.needs == (f"comfyui-gpu{gpu}",)
        assert worker.endpoint == f"127.0.0.1:{8188 + int(gpu)}"
        assert worker.gpu == int(gpu)
        assert worker.environ == {
            "WORKERS": "comfyui",
            "WORKER_ID": f"comfyui-gpu{gpu}",
            "MACHINE_ID": "box",
            "GPU_ID": gpu,
            "HUB_REDIS_URL": "redis://hub",
            "COMFYUI_HOST": "127.0.0.1",
            "COMFYUI_PORT": str(8188 + int(gpu)),
            "EMP_MACHINE_ROOT": worker.environ["EMP_MACHINE_ROOT"],
        }
    assert "GPU_ID" not in made["worker-ollama"].environ
    assert made["worker-ollama"].environ["OLLAMA_PORT"] == "11434"


def test_installers_get_no_secrets_of_the_hub(make_plan: MakePlan) -> None:
    """They run other people's code: what pip builds, the scripts of custom nodes."""
    made = make_plan({"WORKERS": "comfyui", "HUB_REDIS_URL": "redis://:hunter2@hub", "HF_TOKEN": "theirs"})
    [service] = made.services
    assert "hunter2" not in str(dict(service.config.environ))
    assert service.config.environ["HF_TOKEN"] == "theirs"
    assert "hunter2" in made.workers[0].environ["HUB_REDIS_URL"]


def test_a_worker_of_several_services_is_led_to_all_of_them(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "both", **HUB})
    assert [(one.name, one.endpoint, one.needs) for one in made.workers] == [
        ("worker-both-gpu0", "127.0.0.1:8188, 127.0.0.1:11434", ("comfyui-gpu0", "ollama")),
        ("worker-both-gpu1", "127.0.0.1:8189, 127.0.0.1:11434", ("comfyui-gpu1", "ollama")),
    ]
    assert made.workers[1].environ["COMFYUI_PORT"] == "8189"
    assert made.workers[1].environ["OLLAMA_PORT"] == "11434"


@pytest.mark.parametrize(
    ("workers", "gpus", "wanted"),
    [
        ("comfyui", 2, ["comfyui-gpu0", "comfyui-gpu1"]),
        ("comfyui:1", 2, ["comfyui-gpu0"]),
        ("comfyui:auto", 3, ["comfyui-gpu0", "comfyui-gpu1", "comfyui-gpu2"]),
        ("comfyui:AUTO,openai", 0, ["openai"]),
        ("comfyui:1,comfyui:1", 2, ["comfyui-gpu0", "comfyui-gpu1"]),
        ("comfyui:1,comfyui", 3, ["comfyui-gpu0", "comfyui-gpu1", "comfyui-gpu2"]),
        ("openai", 2, ["openai"]),
        ("openai:3", 0, ["openai", "openai-1", "openai-2"]),
        ("openai:auto", 2, ["openai"]),
        ("ollama:2", 1, ["ollama", "ollama-1"]),
        ("remote", 2, ["remote"]),
        ("remote:auto", 2, ["remote-gpu0", "remote-gpu1"]),
    ],
)
def test_workers_says_how_many_there_are(make_plan: MakePlan, workers: str, gpus: int, wanted: list[str]) -> None:
    assert ids(make_plan({"WORKERS": workers, **HUB}, gpus=gpus)) == wanted


def test_fewer_workers_than_there_is_room_for_go_to_different_gpus(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui:2", "COMFYUI_INSTANCES_PER_GPU": "2", **HUB})
    assert [(one.name, one.endpoint) for one in made.instances] == [
        ("comfyui-gpu0", "127.0.0.1:8188"),
        ("comfyui-gpu1", "127.0.0.1:8190"),
    ]


def test_workers_of_a_service_that_is_not_bound_to_gpus_share_its_instances(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "ollama:3", **HUB})
    assert [one.name for one in made.instances] == ["ollama"]
    assert {one.needs for one in made.workers} == {("ollama",)}


def test_two_worker_types_of_one_service_share_its_instances(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "comfyui,both", **HUB}, gpus=1)
    assert [one.name for one in made.instances] == ["comfyui-gpu0", "ollama"]
    assert ids(made) == ["comfyui-gpu0", "both-gpu0"]


def test_worker_id_names_a_single_worker_and_stands_before_the_names_of_several(make_plan: MakePlan) -> None:
    assert ids(make_plan({"WORKERS": "ollama", "WORKER_ID": "blue", **HUB})) == ["blue"]
    assert ids(make_plan({"WORKERS": "comfyui", "WORKER_ID": "blue", **HUB})) == [
        "blue-comfyui-gpu0",
        "blue-comfyui-gpu1",
    ]


def test_workers_have_the_folders_of_their_gpus(make_plan: MakePlan, root: Path) -> None:
    made = make_plan({"WORKERS": "comfyui,both,ollama", **HUB}, gpus=2)
    assert [one.cwd.relative_to(root).as_posix() for one in made.workers] == [
        "worker_gpu0",
        "worker_gpu1",
        "worker_both-gpu0",
        "worker_both-gpu1",
        "worker_ollama",
    ]
    assert all(one.log == one.cwd / "logs" / "output.log" for one in made.workers)


def test_a_worker_may_take_as_long_to_stop_as_its_jobs_may(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "openai", "EMP_GRACE_S": "120", **HUB})
    assert made.workers[0].stop_s > 120


def test_workers_get_the_settings_and_nothing_else_of_the_environment(make_plan: MakePlan) -> None:
    environ = {
        "WORKERS": "openai",
        "EMP_STORE": "s3://bucket",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "EMP_OF_A_PLUGIN": "1",
        "EMP_POOL": " ",
        "MY_TOKEN": "mine",
        "SHELL": "/bin/zsh",
        **HUB,
    }
    worker = make_plan(environ).workers[0].environ
    assert worker["EMP_STORE"] == "s3://bucket"
    assert worker["AWS_SECRET_ACCESS_KEY"] == "s3cr3t"
    assert worker["EMP_OF_A_PLUGIN"] == "1"
    assert not worker.keys() & {"MY_TOKEN", "SHELL", "EMP_POOL"}
    assert make_plan(environ, handed_on=["MY_TOKEN"]).workers[0].environ["MY_TOKEN"] == "mine"


def test_what_leads_a_worker_to_its_instance_goes_before_what_the_environment_says(make_plan: MakePlan) -> None:
    environ = {"WORKERS": "comfyui", "COMFYUI_PORT": "1", "GPU_INDEX": "7", "EMP_X": "y", **HUB}
    made = make_plan(environ, handed_on=["COMFYUI_PORT"])
    assert [one.environ["COMFYUI_PORT"] for one in made.workers] == ["8188", "8189"]


def test_secrets_are_named_and_never_in_the_repr(make_plan: MakePlan) -> None:
    environ = {
        "WORKERS": "openai",
        "HUB_REDIS_URL": "redis://u:hunter2@hub",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "EMP_OF_A_PLUGIN_TOKEN": "hunter2",
        "EMP_POOL": "blue",
    }
    made = make_plan(environ)
    assert made.secrets >= {"HUB_REDIS_URL", "AWS_SECRET_ACCESS_KEY", "EMP_OF_A_PLUGIN_TOKEN"}
    assert "EMP_POOL" not in made.secrets
    assert "hunter2" not in repr(made)
