"""`emp machine render`, with the installed plugins; and the files that people who come from older set-ups expect."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from emp_machine.commands.render import RENDERERS
from emp_machine.plan.model import GpuPlan

from .conftest import Emp

OLD_ENV = """\
# Worker configuration
WORKERS="comfyui,ollama"  # Which services to run
NUM_GPUS=2                # Number of GPUs available

# ComfyUI configuration
COMFYUI_INSTANCES_PER_GPU=1
COMFYUI_BASE_PORT=8188
COMFYUI_REPO_URL=https://github.com/stakeordie/ComfyUI.git
COMFYUI_BRANCH=main

# Ollama configuration
OLLAMA_DEFAULT_MODEL=llama3.2:1b
OLLAMA_BASE_PORT=11434

# Redis connection
HUB_REDIS_URL=redis://localhost:6379
"""


def rendered(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", [kind for kind in ("env", "pm2", "supervisor", "systemd") if kind in RENDERERS])
def test_files_are_written_nothing_is_printed_and_twice_is_as_once(emp: Emp, tmp_path: Path, kind: str) -> None:
    environ = {"WORKERS": "comfyui,ollama,openai", "NUM_GPUS": "2", "GPU_MODE": "mock", "OPENAI_API_KEY": "hunter2"}
    said = emp("render", kind, "--output", "out", **environ)
    assert (said.code, said.out, said.err) == (0, "", "")
    first = rendered(tmp_path / "out")
    assert emp("render", kind, "--output", "out", **environ).code == 0
    assert rendered(tmp_path / "out") == first
    holders = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert holders, "the worker needs its key"
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def test_an_unknown_kind_is_refused_with_those_there_are(emp: Emp) -> None:
    said = emp("render", "nomad", WORKERS="echo")
    assert (said.code, said.out) == (2, "")
    assert all(kind in said.err for kind in RENDERERS)


def test_the_files_may_be_for_a_machine_whose_ports_are_taken_here(emp: Emp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emp_machine.plan.here.strangers", lambda root: {8188: "ComfyUI (process 7)"})
    environ = {"WORKERS": "comfyui", "GPU_MODE": "mock"}
    assert emp("plan", **environ).code == 2
    assert emp("render", "pm2", **environ).code == 0


def test_the_settings_that_were_written_give_the_same_plan_again(emp: Emp, tmp_path: Path) -> None:
    environ = {
        "WORKERS": "comfyui:2,ollama",
        "NUM_GPUS": "2",
        "GPU_MODE": "mock",
        "COMFYUI_INSTANCES_PER_GPU": "2",
        "OLLAMA_BASE_PORT": "12000",
        "EMP_CAPABILITIES": '{"owner": "it\'s me"}',
    }
    before = emp("plan", "--json", **environ).data
    emp("render", "env", **environ)
    after = emp("plan", "--json", "--env-file", "machine.env").data
    assert after["processes"] == before["processes"]
    assert after["services"] == before["services"]
    assert after["environ"] == before["environ"]


# -- what older set-ups had ------------------------------------------------------------------------------------------


@pytest.fixture
def apps(emp: Emp, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The apps of ecosystem.config.js for the `.env` of an older set-up."""
    (tmp_path / ".env").write_text(OLD_ENV)
    assert emp("render", "pm2", GPU_MODE="mock", EMP_MACHINE_HOST="0.0.0.0").code == 0  # noqa: S104 - as it was there
    text = (tmp_path / "ecosystem.config.js").read_text()
    document = json.loads(text.removeprefix("module.exports = ").rstrip().removesuffix(";"))
    return {app["name"]: app for app in document["apps"]}


@pytest.mark.parametrize(("gpu", "port"), [("0", "8188"), ("1", "8189")])
def test_an_old_ecosystem_has_its_comfyui_on_each_gpu(apps: dict[str, dict[str, Any]], gpu: str, port: str) -> None:
    """`python main.py --port 8188 --listen 0.0.0.0` in `…/ComfyUI`, with GPU_INDEX and COMFYUI_PORT."""
    app = apps[f"comfyui-gpu{gpu}"]
    assert Path(app["script"]).name == "python"
    args = app["args"]
    assert args[0] == "main.py"
    assert (args[args.index("--port") + 1], args[args.index("--listen") + 1]) == (port, "0.0.0.0")  # noqa: S104
    assert Path(app["cwd"]).name == "ComfyUI"
    assert app["env"].items() >= {"GPU_INDEX": gpu, "COMFYUI_PORT": port, "CUDA_VISIBLE_DEVICES": gpu}.items()


def test_an_old_ecosystem_has_its_workers(apps: dict[str, dict[str, Any]]) -> None:
    """One for each instance, each with its WORKER_ID and the hub; they had names twice, and have their own."""
    workers = {name: app["env"] for name, app in apps.items() if name.startswith("worker-")}
    assert {env["WORKER_ID"] for env in workers.values()} == {"comfyui-gpu0", "comfyui-gpu1", "ollama"}
    assert workers.keys() == {"worker-comfyui-gpu0", "worker-comfyui-gpu1", "worker-ollama"}
    assert {env["HUB_REDIS_URL"] for env in workers.values()} == {"redis://localhost:6379"}
    assert {env["MACHINE_ID"] for env in workers.values()} == {"box"}
    for gpu, port in (("0", "8188"), ("1", "8189")):
        env = workers[f"worker-comfyui-gpu{gpu}"]
        assert (env["WORKERS"], env["GPU_ID"], env["COMFYUI_PORT"]) == ("comfyui", gpu, port)
        assert env["COMFYUI_HOST"] in ("127.0.0.1", "localhost")
    assert workers["worker-ollama"]["WORKERS"] == "ollama"
    assert "11434" in workers["worker-ollama"]["OLLAMA_HOST"] + workers["worker-ollama"].get("OLLAMA_BASE_PORT", "")


def test_an_old_ecosystem_has_nothing_besides_but_its_ollama(apps: dict[str, dict[str, Any]]) -> None:
    """Ollama was installed as a daemon and started by nobody; the hub was elsewhere."""
    assert apps.keys() - {name for name in apps if name.startswith("worker-")} == {
        "comfyui-gpu0",
        "comfyui-gpu1",
        "ollama",
    }


def test_an_old_env_file_installs_what_it_installed(emp: Emp, tmp_path: Path) -> None:
    """The repository, its branch and the default model."""
    (tmp_path / ".env").write_text(OLD_ENV)
    said = emp("install", "--dry-run", GPU_MODE="mock")
    assert said.code == 0
    for told in ("https://github.com/stakeordie/ComfyUI.git", "main", "llama3.2:1b"):
        assert told in said.out


def test_an_old_compose_file_has_a_container_for_each_gpu(
    emp: Emp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`worker-gpu0` with one GPU of its own, the repository, the hub and the machine's name."""
    monkeypatch.setattr("emp_machine.plan.here.found_gpus", lambda: ((GpuPlan(0), GpuPlan(1)), ()))
    environ = {
        "WORKERS": "comfyui",
        "MACHINE_ID": "1",
        "NUM_GPUS": "2",
        "REDIS_API_HOST": "redis-api",
        "REDIS_API_PORT": "8001",
        "COMFY_REPO_URL": "https://github.com/stakeordie/ComfyUI.git",
    }
    assert emp("render", "compose", "--per-gpu", **environ).code == 0
    services = yaml.safe_load((tmp_path / "docker-compose.yml").read_text())["services"]
    assert services.keys() == {"worker-gpu0", "worker-gpu1"}
    for gpu, port in (("0", 8188), ("1", 8189)):
        one = services[f"worker-gpu{gpu}"]
        environment = one["environment"]
        assert environment["COMFYUI_REPO_URL"] == environ["COMFY_REPO_URL"]
        assert (environment["MACHINE_ID"], environment["WORKERS"]) == (f"1-gpu{gpu}", "comfyui:1")
        [device] = one["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": [gpu], "capabilities": ["gpu"]}
        assert one["ports"] == [f"127.0.0.1:{port}:8188"]
    assert "HUB_REDIS_URL='redis://redis-api:8001'" in (tmp_path / "secrets.env").read_text()


@pytest.mark.parametrize("kind", RENDERERS)
def test_the_file_of_variables_that_the_plan_is_made_from_stays_as_it_is(emp: Emp, tmp_path: Path, kind: str) -> None:
    text = OLD_ENV.replace("localhost", "hub.example.org")
    (tmp_path / ".env").write_text(text)
    assert emp("render", kind, GPU_MODE="mock").code == 0
    assert (tmp_path / ".env").read_text() == text
