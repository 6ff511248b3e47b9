"""What is installed and set up: `emp plugins`, `emp services`, `emp doctor`, `emp redis`, and what workers are refused."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from emp_core.queue.embedded import use_embedded_redis

from .conftest import Emp, Hub


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed plugin that raises on import."""
    site = tmp_path / "site"
    info = site / "emp_broken-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: emp-broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[emp_core.plugins]\nbroken = emp_broken_plugin\n")
    (site / "emp_broken_plugin.py").write_text("raise RuntimeError('no licence found')\n")
    monkeypatch.syspath_prepend(str(site))
    yield "broken"
    sys.modules.pop("emp_broken_plugin", None)


@pytest.fixture
def plugin_with_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site-with-command"
    info = site / "emp_greeter-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: emp-greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emp_core.plugins]\ngreeter = emp_greeter_plugin\n")
    (site / "emp_greeter_plugin.py").write_text(
        "import click\nfrom emp_core import hookimpl\n"
        "@hookimpl\ndef emp_add_commands(cli):\n"
        "    @cli.command()\n    def greet():\n        'Greet somebody.'\n        click.echo('hello')\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("emp_greeter_plugin", None)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, in which no plugin was asked for commands yet."""
    from emp_core.cli.main import cli

    monkeypatch.setattr(cli, "_asked_plugins", False)
    monkeypatch.setattr(cli, "commands", {})


def test_plugins_are_listed_with_what_they_bring(emp: Emp):
    listed = {one["name"]: one for one in emp("plugins", "--json").data}
    assert listed["echo"]["distribution"] == "emp-core"
    assert listed["echo"]["registers"]["connector"] == ["EchoConnector"]
    assert "EchoConnector" in emp("plugins").out


def test_a_plugin_that_raises_on_import_is_listed_as_offline_and_everything_else_runs(
    emp: Emp, on_hub: Emp, broken_plugin: str, unasked: None
):
    listed = {one["name"]: one for one in emp("plugins", "--json").data}
    assert listed["broken"]["ok"] is False
    assert listed["broken"]["reason"] == "RuntimeError: no licence found"
    assert listed["broken"]["version"] == "1.2"
    assert listed["echo"]["ok"] is True
    assert "Traceback" not in emp("plugins").err
    assert emp("--help").code == 0
    assert on_hub("submit", "echo", "--wait").code == 0
    doctor = {check["name"]: check for check in on_hub("doctor", "--json").data}
    assert doctor["plugin broken"]["state"] == "warn"


def test_plugins_add_commands_that_are_listed_and_run(emp: Emp, plugin_with_command: None, unasked: None):
    assert emp("greet").out == "hello\n"
    assert "Greet somebody." in emp("--help").out


def test_services_tell_the_mapping_and_where_it_came_from(emp: Emp, tmp_path: Path):
    data = emp("services", "--json").data
    assert data["source"] == "plugins"
    assert data["workers"]["echo"]["accepts"] == {"echo": ["echo"]}
    assert data["services"]["echo"]["connector_state"] == "installed"
    file = tmp_path / "mapping.json"
    file.write_text(json.dumps(mapping("Missing", installer_config={"api_key": "geheim"})))
    ended = emp("services", EMP_SERVICE_MAPPING=str(file))
    assert ended.code == 0
    assert str(file) in ended.out
    assert "not installed" in ended.out
    assert "geheim" not in ended.out


def test_a_new_plugin_is_made_with_what_to_do_next(emp: Emp, tmp_path: Path):
    ended = emp("plugins", "new", "whisper", "--dir", str(tmp_path / "my plugin"))
    assert ended.code == 0
    assert f"cd '{tmp_path}/my plugin'" in ended.out
    assert "WORKERS=whisper emp up" in ended.out
    assert (tmp_path / "my plugin" / "emp_whisper" / "connector.py").is_file()
    data = emp("plugins", "new", "whisper", "--dir", str(tmp_path / "other"), "--json").data
    assert data["distribution"] == "emp-whisper"
    assert "emp_whisper/connector.py" in data["files"]
    again = emp("plugins", "new", "whisper", "--dir", str(tmp_path / "other"), "--json")
    assert again.code == 2
    assert "--dir" in again.error["hint"]


def test_the_schema_of_a_services_payloads_can_be_put_into_a_file(emp: Emp):
    ended = emp("services", "schema", "echo")
    assert ended.code == 0
    schema = json.loads(ended.out)
    Draft202012Validator.check_schema(schema)
    assert schema == emp("services", "schema", "echo", "--json").data
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"hello": 1, "$echo": {"steps": 3}})
    assert not validator.is_valid({"$echo": {"steps": "3"}})


def test_a_schema_that_cannot_be_told_is_refused_with_what_is_known(
    emp: Emp, broken_plugin: str, unasked: None, tmp_path: Path
):
    ended = emp("services", "schema", "ecco", "--json")
    assert ended.code == 2
    assert ended.error["code"] == "config"
    assert "echo" in ended.error["details"]["known"]
    assert "did you mean 'echo'?" in ended.error["hint"]
    file = tmp_path / "mapping.json"
    file.write_text(json.dumps(mapping("BrokenConnector")))
    ended = emp("services", "schema", "mine", "--json", EMP_SERVICE_MAPPING=str(file))
    assert ended.code == 2
    assert "no licence found" in ended.error["message"]


def mapping(connector: str, **more: Any) -> dict[str, Any]:
    service = {"connector": connector, "type": "external_api", "is_gpu_bound": False, **more}
    route = {"job_service_required": "mine", "worker_service": "mine"}
    worker = {"services": ["mine"], "is_gpu_bound": False, "job_service_required_map": [route]}
    described = {connector: {"path": "./mine.js", "description": ""}}
    return {"workers": {"mine": worker}, "services": {"mine": service}, "connectors": described}


def test_a_mapping_that_is_missing_or_no_json_ends_with_2(emp: Emp, tmp_path: Path):
    missing = emp("worker", "echo", EMP_SERVICE_MAPPING=str(tmp_path / "none.json"))
    assert missing.code == 2
    assert "does not exist" in missing.err
    (tmp_path / "mapping.json").write_text("{nonsense")
    wrong = emp("worker", "echo", "--json", EMP_SERVICE_MAPPING=str(tmp_path / "mapping.json"))
    assert (wrong.code, wrong.error["code"]) == (2, "config")


def test_every_mistake_of_a_mapping_is_told_with_its_path(emp: Emp, tmp_path: Path):
    wrong = mapping("EchoConnector")
    wrong["workers"]["mine"]["is_gpu_bound"] = "perhaps"
    wrong["workers"]["mine"]["job_service_required_map"] = [{"job_service_required": "x"}]
    wrong["services"]["mine"]["type"] = "toaster"
    wrong["services"]["mine"]["ports"] = ["http"]
    wrong["services"]["other"] = {"type": "external_api"}
    (tmp_path / "mapping.json").write_text(json.dumps(wrong))
    ended = emp("worker", "echo", EMP_SERVICE_MAPPING=str(tmp_path / "mapping.json"))
    assert ended.code == 2
    told = [line for line in ended.err.splitlines() if line.startswith("  - ")]
    for path in (
        "workers.mine.is_gpu_bound",
        "workers.mine.job",
        "services.mine.type",
        "services.mine.ports",
        "services.other",
    ):
        assert any(path in line for line in told), path


@pytest.mark.parametrize("command", ["up", "worker"])
def test_workers_that_are_empty_or_unknown_end_with_2_before_anything_is_started(emp: Emp, command: str):
    empty = emp(command)
    assert empty.code == 2
    assert "WORKERS is empty" in empty.err
    assert "echo" in empty.err
    unknown = emp(command, "--json", WORKERS="ecko,toaster:2,echo:many")
    assert unknown.code == 2
    assert any("did you mean 'echo'" in problem for problem in unknown.error["problems"])
    assert any("pip install emp-toaster" in problem for problem in unknown.error["problems"])
    assert any("'echo:many'" in problem for problem in unknown.error["problems"])
    assert emp("redis", "--json").data["running"] is False


def test_a_folder_for_artifacts_that_cannot_be_written_ends_with_2(emp: Emp, hub: Hub, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    ended = emp("worker", "echo", "--json", EMP_STORE=str(tmp_path / "file" / "store"), environ=hub.environ)
    assert (ended.code, ended.error["code"]) == (2, "storage_unavailable")
    assert "EMP_STORE" in ended.error["hint"]


def test_a_worker_waits_for_redis_with_a_message_and_ends_with_3(emp: Emp):
    ended = emp("worker", "echo", HUB_REDIS_URL="redis://127.0.0.1:1", EMP_REDIS_WAIT_S="0.2")
    assert ended.code == 3
    assert "waiting for redis" in ended.err
    embedded = emp("worker", "echo", HUB_REDIS_URL="", EMP_REDIS_WAIT_S="0.2")
    assert embedded.code == 3
    assert "waiting for Redis" in embedded.err


def test_a_redis_url_that_cannot_be_used_ends_with_2(emp: Emp):
    ended = emp("jobs", "ls", HUB_REDIS_URL="http://:geheim@hub:6379")
    assert ended.code == 2
    assert "redis://" in ended.err
    assert "geheim" not in ended.err


def states(data: list[dict[str, Any]]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in data}


def test_the_doctor_finds_an_installation_in_order(on_hub: Emp):
    ended = on_hub("doctor", "--json", WORKERS="echo")
    assert ended.code == 0
    found = states(ended.data)
    for name in ("settings", "mapping", "workers", "service echo", "redis", "queue", "artifacts", "disk", "gpus"):
        assert found[name] in ("ok", "warn"), name
    lines = on_hub("doctor", WORKERS="echo").out.splitlines()
    assert any(line.startswith("ok    redis: ") for line in lines)


def test_the_doctor_ends_with_3_when_only_something_is_not_reached(emp: Emp):
    ended = emp("doctor", "--json", HUB_REDIS_URL="redis://127.0.0.1:1", WORKERS="echo", EMP_REDIS_WAIT_S="0.1")
    assert ended.code == 3
    assert states(ended.data)["redis"] == "fail"
    assert ended.error["code"] == "unhealthy"


def test_the_doctor_ends_with_2_when_the_configuration_is_wrong(on_hub: Emp, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    ended = on_hub("doctor", WORKERS="toaster", EMP_STORE=str(tmp_path / "file" / "store"))
    assert ended.code == 2
    assert "fail  workers: " in ended.out
    assert "pip install emp-toaster" in ended.out
    assert "fail  artifacts: " in ended.out


def test_the_doctor_starts_no_redis(emp: Emp):
    ended = emp("doctor", "--json")
    assert ended.code == 0
    assert states(ended.data)["redis"] == "ok"
    assert emp("redis", "--json").data["running"] is False


def test_the_embedded_redis_is_shown_without_its_password_and_stopped(emp: Emp, tmp_path: Path):
    assert emp("redis", "url", "--json").code == 3
    assert emp("redis", "stop", "--json").data == {"stopped": False}
    with use_embedded_redis(tmp_path / "data") as server:
        password = server.url.partition("default:")[2].partition("@")[0]
        shown = emp("redis", "status", "--json")
        assert (shown.data["port"], shown.data["pid"]) == (server.port, server.pid)
        assert password not in shown.out
        text = emp("redis").out
        assert str(server.port) in text
        assert str(server.folder) in text
        assert password not in text
        assert emp("redis", "url").out.strip() == server.url
        assert emp("jobs", "ls", "--json").code == 0  # commands find it by themselves
        assert emp("redis", "stop", "--json").data == {"stopped": True}
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
