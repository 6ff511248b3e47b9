"""`emp machine plan`, with the installed plugins."""

from pathlib import Path

import pytest

from .conftest import Emp, Said

TWO = {"NUM_GPUS": "2", "GPU_MODE": "mock"}


def listening(said: Said) -> dict[str, str]:
    return {one["name"]: one["endpoint"] for one in said.data["processes"] if one["kind"] == "service"}


def test_two_gpus_two_services_three_workers(emp: Emp) -> None:
    said = emp("plan", "--json", WORKERS="comfyui,ollama", **TWO)
    assert listening(said) == {
        "redis": "127.0.0.1:6379",
        "comfyui-gpu0": "127.0.0.1:8188",
        "comfyui-gpu1": "127.0.0.1:8189",
        "ollama": "127.0.0.1:11434",
    }
    workers = [one for one in said.data["processes"] if one["kind"] == "worker"]
    assert [one["worker_id"] for one in workers] == ["comfyui-gpu0", "comfyui-gpu1", "ollama"]
    assert [one["environ"].get("COMFYUI_PORT") for one in workers] == ["8188", "8189", None]


def test_two_instances_on_each_gpu_have_four_ports(emp: Emp) -> None:
    said = emp("plan", "--json", WORKERS="comfyui", COMFYUI_INSTANCES_PER_GPU="2", HUB_REDIS_URL="redis://hub", **TWO)
    assert list(listening(said).values()) == [f"127.0.0.1:{port}" for port in (8188, 8189, 8190, 8191)]


def test_people_are_shown_tables(emp: Emp) -> None:
    said = emp("plan", WORKERS="comfyui,ollama,openai", EXECUTION_SERVICE_PORT="9000", **TWO)
    assert said.code == 0
    for line in (
        "worker-comfyui-gpu1  comfyui-gpu1  1    127.0.0.1:9001   redis, comfyui-gpu1",
        "openai   external_api                             elsewhere",
        "Note: EXECUTION_SERVICE_PORT is taken for COMFYUI_BASE_PORT=9000",
        "GPUs       0: mock, 1: mock",
        "Redis      redis://127.0.0.1:6379, its own",
    ):
        assert line in said.out


@pytest.mark.parametrize("password", ["hunter2", "'hunter2", '"hunter2', "a hunter2"])
@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--json"]])
def test_secrets_are_not_shown(emp: Emp, arguments: list[str], password: str) -> None:
    said = emp(
        *arguments,
        WORKERS="openai",
        HUB_REDIS_URL=f"redis://me:{password}@hub:6379",
        OPENAI_API_KEY="hunter2",
        EMP_STORES='{"a": {"url": "s3://b", "env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}}',
    )
    assert said.code == 0
    assert "hunter2" not in said.out + said.err


def test_a_plan_that_cannot_be_is_refused_with_all_reasons(emp: Emp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emp_machine.plan.here.strangers", lambda root: {8188: "nginx (process 7)"})
    said = emp("plan", WORKERS="comfyui:3,ollama", OLLAMA_BASE_PORT="8189", **TWO)
    assert (said.code, said.out) == (2, "")
    assert "port 8188 of comfyui-gpu0 is taken by nginx (process 7)" in said.err
    assert "port 8189 is used by comfyui-gpu1 and by ollama" in said.err
    assert "WORKERS asks for 3 workers of 'comfyui', and 2 GPUs have room for 2" in said.err


def test_a_mapping_with_an_unknown_installer_or_without_a_variable_is_refused(emp: Emp, tmp_path: Path) -> None:
    mapping = tmp_path / "service-mapping.json"
    mapping.write_text(
        '{"workers": {"tool": {"services": ["tool"]}}, "services": {"tool": {"connector": "EchoConnector", '
        '"type": "pm2_service", "installer": "ToolInstaller", "ports": ["${TOOL_PORT}"]}}}'
    )
    without = emp("plan", WORKERS="tool", EMP_SERVICE_MAPPING=str(mapping))
    assert (without.code, "the variable TOOL_PORT is not set" in without.err) == (2, True)
    unknown = emp("plan", WORKERS="tool", EMP_SERVICE_MAPPING=str(mapping), TOOL_PORT="7000")
    assert (unknown.code, "no installed plugin has the installer 'ToolInstaller'" in unknown.err) == (2, True)


def test_a_setting_of_a_plugin_that_is_used_and_cannot_be_read_is_a_reason(emp: Emp) -> None:
    said = emp("plan", WORKERS="openai", EMP_OPENAI_POLL_S="often", HUB_REDIS_URL="redis://hub")
    assert (said.code, "EMP_OPENAI_POLL_S='often'" in said.err) == (2, True)
    assert emp("plan", WORKERS="echo", EMP_OPENAI_POLL_S="often", HUB_REDIS_URL="redis://hub").code == 0


# -- the file of variables -------------------------------------------------------------------------------------------


def environ_of(said: Said) -> dict[str, str]:
    (worker,) = [one for one in said.data["processes"] if one["kind"] == "worker"]
    environ: dict[str, str] = worker["environ"]
    return environ


def test_the_env_file_of_the_folder_is_read_and_the_environment_goes_first(emp: Emp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# what runs here\nexport WORKERS=\"echo\"\nHUB_REDIS_URL=redis://file # a comment\nEMP_POOL='blue $HOME'\n\nMINE=1\n"
    )
    said = emp("plan", "--json", HUB_REDIS_URL="redis://environment")
    environ = environ_of(said)
    assert environ["WORKERS"] == "echo"
    assert environ["HUB_REDIS_URL"] == "redis://environment"
    assert environ["EMP_POOL"] == "blue $HOME"
    assert environ["MINE"] == "1"


def test_an_env_file_can_be_named(emp: Emp, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WORKERS=ollama\n")
    (tmp_path / "box.env").write_text("WORKERS=echo\nHUB_REDIS_URL=redis://hub\n")
    assert environ_of(emp("plan", "--json", "--env-file", "box.env"))["WORKERS"] == "echo"


def test_what_a_mapping_refers_to_is_handed_to_workers(emp: Emp, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(
        '{"workers": {"tool": {"services": ["tool"]}}, "services": {"tool": {"connector": "EchoConnector", '
        '"type": "external_api", "region": "${TOOL_REGION}"}}}'
    )
    environ = environ_of(
        emp(
            "plan",
            "--json",
            WORKERS="tool",
            EMP_SERVICE_MAPPING="map.json",
            TOOL_REGION="eu",
            HUB_REDIS_URL="redis://h",
        )
    )
    assert environ["TOOL_REGION"] == "eu"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"WORKERS=echo\nnonsense here\n=x\n", "line 2: expected NAME=value"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"A=" + b"x" * 2**20, "is larger than"),
    ],
)
def test_an_env_file_that_cannot_be_used_is_refused(emp: Emp, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    said = emp("plan", WORKERS="echo")
    assert (said.code, reason in said.err) == (2, True), said.err


def test_an_env_file_that_is_named_has_to_be_there(emp: Emp) -> None:
    said = emp("plan", "--env-file", "none.env", WORKERS="echo")
    assert (said.code, "none.env cannot be read" in said.err) == (2, True)
