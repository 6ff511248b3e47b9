"""Containers say what the plan says, and let nothing out that is not asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from emp_machine.plan.model import GpuPlan, MachinePlan
from emp_machine.plan.planning import plan_machine
from emp_machine.render import compose, docker
from emp_machine.render.files import write_files

from emp_core.config import Settings
from emp_core.plugins.manager import load_plugins
from emp_core.services.load import load_mapping

PLUGINS = load_plugins()
HUB = "redis://:hunter2@hub.example.org:6379/0"


def planned(gpus: int = 2, mock: bool = False, **environ: str) -> MachinePlan:
    environ = {"WORKERS": "comfyui,ollama", "NUM_GPUS": str(gpus), "MACHINE_ID": "box", "HUB_REDIS_URL": HUB, **environ}
    mapping = load_mapping(Settings.from_env(environ), PLUGINS, environ)
    found = [GpuPlan(index, mock=mock) for index in range(gpus)]
    return plan_machine(mapping, PLUGINS, environ, found, handed_on=environ.keys())


def composed(plan: MachinePlan, folder: Path, **how: bool) -> tuple[dict[str, Any], str]:
    """The document, and the file of secrets."""
    files = {one.path.name: one for one in compose.render(plan, folder, **how)}
    assert files["secrets.env"].private
    return yaml.safe_load(files["docker-compose.yml"].text), files["secrets.env"].text


@pytest.mark.parametrize("per_gpu", [False, True])
@pytest.mark.parametrize("own_redis", [False, True])
def test_the_file_is_valid_by_the_compose_specification(tmp_path: Path, per_gpu: bool, own_redis: bool) -> None:
    plan = planned(HUB_REDIS_URL="" if own_redis else HUB)
    for one in compose.render(plan, tmp_path, per_gpu=per_gpu):
        (tmp_path / one.path.name).write_text(one.text)
    argv = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(tmp_path / "docker-compose.yml")]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_container_has_the_ports_the_gpus_and_the_variables_of_the_plan(tmp_path: Path) -> None:
    document, _ = composed(planned(), tmp_path)
    [worker] = document["services"].values()
    assert worker["ports"] == ["127.0.0.1:8188:8188", "127.0.0.1:8189:8189", "127.0.0.1:11434:11434"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0", "1"], "capabilities": ["gpu"]}
    environment = worker["environment"]
    assert (environment["WORKERS"], environment["NUM_GPUS"]) == ("comfyui,ollama", "2")
    assert worker["env_file"] == ["secrets.env"]


def test_per_gpu_each_gpu_has_a_container_and_the_rest_one_more(tmp_path: Path) -> None:
    document, _ = composed(planned(COMFYUI_INSTANCES_PER_GPU="2"), tmp_path, per_gpu=True)
    services = document["services"]
    assert list(services) == ["worker-gpu0", "worker-gpu1", "worker"]
    # On the host the ports are the plan's; inside, each container has one GPU, which is its first.
    assert services["worker-gpu0"]["ports"] == ["127.0.0.1:8188:8188", "127.0.0.1:8189:8189"]
    assert services["worker-gpu1"]["ports"] == ["127.0.0.1:8190:8188", "127.0.0.1:8191:8189"]
    assert services["worker"]["ports"] == ["127.0.0.1:11434:11434"]
    devices = [one["deploy"]["resources"].get("reservations", {}).get("devices") for one in services.values()]
    assert [one and one[0]["device_ids"] for one in devices] == [["0"], ["1"], ["0", "1"]]
    assert [one["environment"]["MACHINE_ID"] for one in services.values()] == ["box-gpu0", "box-gpu1", "box"]
    assert [one["environment"]["NUM_GPUS"] for one in services.values()] == ["1", "1", "0"]
    assert [one["build"]["target"] for one in services.values()] == ["comfyui", "comfyui", "ollama"]


@pytest.mark.parametrize("per_gpu", [False, True])
def test_what_runs_inside_is_what_the_ports_lead_to(tmp_path: Path, per_gpu: bool) -> None:
    document, _ = composed(planned(COMFYUI_INSTANCES_PER_GPU="2"), tmp_path, per_gpu=per_gpu)
    for one in document["services"].values():
        environment = {name: value for name, value in one["environment"].items() if "${" not in value}
        gpus = int(environment.pop("NUM_GPUS"))
        inside = planned(gpus, **environment)
        ports = {int(port.rpartition(":")[2]) for port in one["ports"]}
        assert ports == {port for service in inside.services for each in service.instances for port in each.ports}


def test_nothing_listens_beyond_the_hosts_loopback(tmp_path: Path) -> None:
    for per_gpu in (False, True):
        document, _ = composed(planned(HUB_REDIS_URL=""), tmp_path, per_gpu=per_gpu)
        for one in document["services"].values():
            assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))
            assert one.get("network_mode") is None
        assert "ports" not in document["services"]["redis"]


def test_every_container_is_confined(tmp_path: Path) -> None:
    document, _ = composed(planned(HUB_REDIS_URL=""), tmp_path)
    for one in document["services"].values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one["user"].partition(":")[0] != "0"
        assert one["deploy"]["resources"]["limits"]["memory"]
        assert one["healthcheck"]["test"]


def test_secrets_stand_in_the_private_file_alone(tmp_path: Path) -> None:
    plan = planned(WORKERS="comfyui,openai", OPENAI_API_KEY="sk-hunter2", EMP_STORE="azure://x?sig=hunter2")
    document, secrets = composed(plan, tmp_path)
    assert "hunter2" not in json.dumps(document)
    assert "OPENAI_API_KEY='sk-hunter2'" in secrets
    assert HUB in secrets
    assert "OPENAI_API_KEY" not in document["services"]["worker"]["environment"]


def test_the_file_that_the_plan_is_made_from_is_not_written_over(tmp_path: Path) -> None:
    """Compose reads `.env` by itself, and so does `emp machine`: it is its user's."""
    written = {one.path.name for one in (*compose.render(planned(), tmp_path), *docker.render(planned(), tmp_path))}
    assert ".env" not in written


@pytest.mark.parametrize(
    ("secret", "line"),
    [
        ('p$5w "#x" ${HOME}', """'p$5w "#x" ${HOME}'"""),
        ("it's $5", '"it\'s \\$5"'),
        ("ends with \\", '"ends with \\\\"'),
        ("two\nlines", "'two\nlines'"),
    ],
)
def test_secrets_stand_there_as_compose_reads_them(tmp_path: Path, secret: str, line: str) -> None:
    _, secrets = composed(planned(WORKERS="openai", OPENAI_API_KEY=secret), tmp_path)
    assert f"\nOPENAI_API_KEY={line}\n" in secrets


def test_pip_has_room_for_what_it_builds_and_may_run_it(tmp_path: Path) -> None:
    """Docker mounts a tmpfs noexec, and what lies in it counts as memory."""
    document, _ = composed(planned(), tmp_path)
    worker = document["services"]["worker"]
    assert {"type": "volume", "target": "/tmp"} in worker["volumes"]
    assert "tmpfs" not in worker


def test_per_gpu_as_many_workers_run_as_are_asked_for(tmp_path: Path) -> None:
    document, _ = composed(planned(WORKERS="comfyui:3,echo:5", COMFYUI_INSTANCES_PER_GPU="2"), tmp_path, per_gpu=True)
    asked = {name: one["environment"]["WORKERS"] for name, one in document["services"].items()}
    assert asked == {"worker-gpu0": "comfyui:2", "worker-gpu1": "comfyui:1", "worker": "echo:5"}
    assert "reservations" not in document["services"]["worker"]["deploy"]["resources"], "it uses no GPU"


def test_files_that_variables_name_are_there_inside(tmp_path: Path) -> None:
    for name in ("mapping", "models", "nodes"):
        (tmp_path / f"{name}.json").write_text("{}" if name == "mapping" else "[]")
    environ = {
        "EMP_SERVICE_MAPPING": f"{tmp_path}/mapping.json",
        "COMFYUI_MODELS": f"{tmp_path}/models.json",
        "COMFYUI_CUSTOM_NODES": f"{tmp_path}/nodes.json",
    }
    document, _ = composed(planned(2, False, **environ), tmp_path)
    worker = document["services"]["worker"]
    bound = {one["source"]: one["target"] for one in worker["volumes"] if one["type"] == "bind"}
    assert bound == {outside: worker["environment"][name] for name, outside in environ.items()}
    assert all(one["read_only"] for one in worker["volumes"] if one["type"] == "bind")


def test_numbers_of_the_hosts_gpus_mean_nothing_inside(tmp_path: Path) -> None:
    plan = planned(WORKERS="comfyui", NUM_GPUS="1", CUDA_VISIBLE_DEVICES="1")
    document, _ = composed(plan, tmp_path)
    [worker] = document["services"].values()
    assert "CUDA_VISIBLE_DEVICES" not in worker["environment"]
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["1"]


def test_a_redis_of_the_machines_own_is_a_container_that_is_waited_for(tmp_path: Path) -> None:
    document, secrets = composed(planned(HUB_REDIS_URL=""), tmp_path)
    worker = document["services"]["worker"]
    assert worker["environment"]["HUB_REDIS_URL"] == "redis://redis:6379"
    assert worker["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert not any(port.endswith(":6379") for port in worker["ports"])
    assert "HUB_REDIS_URL" not in secrets
    assert "HUB_REDIS_URL" not in (composed(planned(), tmp_path)[0]["services"]["worker"]["environment"])


def test_a_dollar_stays_a_dollar(tmp_path: Path) -> None:
    document, _ = composed(planned(EMP_POOL="p$5w ${HOME}"), tmp_path)
    assert document["services"]["worker"]["environment"]["EMP_POOL"] == "p$$5w $${HOME}"


def test_pretended_gpus_are_not_asked_of_docker(tmp_path: Path) -> None:
    document, _ = composed(planned(mock=True, GPU_MODE="mock"), tmp_path)
    worker = document["services"]["worker"]
    assert "reservations" not in worker["deploy"]["resources"]
    assert (worker["environment"]["GPU_MODE"], worker["environment"]["NUM_GPUS"]) == ("mock", "2")


def test_a_redis_of_the_host_is_warned_of(tmp_path: Path) -> None:
    [file, _] = compose.render(planned(HUB_REDIS_URL="redis://localhost:6379"), tmp_path)
    assert "host.docker.internal" in file.text.partition("name: emp")[0]


def test_every_target_is_a_stage_and_each_stage_stands_on_an_earlier_one(tmp_path: Path) -> None:
    [dockerfile, *_] = docker.render(planned(), tmp_path)
    seen: list[str] = []
    for line in dockerfile.text.splitlines():
        if line.startswith("FROM "):
            _, parent, _, name = line.split()
            assert parent == "${BASE}" or parent in seen
            seen.append(name)
    assert seen == list(docker.TARGETS)
    assert {"fast-lane", "standard-photography", "standard-art", "standard-product", "heavy"} <= set(seen)


@pytest.mark.parametrize(
    ("workers", "pool", "target"),
    [
        ("comfyui", "heavy", "heavy"),
        ("comfyui,ollama", "fast-lane", "fast-lane"),
        ("comfyui,openai", "heavy", "common"),
        ("comfyui", "a pool of one's own", "comfyui"),
    ],
)
def test_a_machine_of_a_pool_is_made_from_its_target(tmp_path: Path, workers: str, pool: str, target: str) -> None:
    document, _ = composed(planned(WORKERS=workers, EMP_POOL=pool, OPENAI_API_KEY="x"), tmp_path)
    assert document["services"]["worker"]["build"]["target"] == target


def test_every_image_has_what_stores_and_a_redis_of_its_own_need(tmp_path: Path) -> None:
    [dockerfile, *_] = docker.render(planned(EMP_STORE="s3://renders"), tmp_path)
    assert '"emp-core[local,s3]==' in dockerfile.text.partition("\nFROM base")[0]


def test_no_image_asks_for_gpus_by_itself(tmp_path: Path) -> None:
    """Where NVIDIA's runtime is the default, every container that names them would see all of the host's."""
    [dockerfile, *_] = docker.render(planned(), tmp_path)
    assert "NVIDIA_VISIBLE_DEVICES" not in dockerfile.text


def test_no_stage_ends_as_root(tmp_path: Path) -> None:
    [dockerfile, *_] = docker.render(planned(), tmp_path)
    for stage in dockerfile.text.split("\nFROM ")[1:]:
        users = [line for line in stage.splitlines() if line.startswith("USER ")]
        assert users[-1:] != ["USER root"], stage.splitlines()[0]
    assert 'ENTRYPOINT ["tini", "--", "emp", "machine", "up"]' in dockerfile.text


def test_lists_that_people_wrote_are_kept(tmp_path: Path) -> None:
    write_files(docker.render(planned(), tmp_path), tmp_path)
    mine = tmp_path / "pools" / "heavy" / "models.json"
    assert json.loads(mine.read_text()) == []
    mine.write_text('[{"url": "https://host/x", "path": "x"}]')
    write_files(docker.render(planned(), tmp_path), tmp_path)
    assert "https://host/x" in mine.read_text()
