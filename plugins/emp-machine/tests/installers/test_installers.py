"""The installers that come with the machine layer keep to what every installer keeps to, and start what they installed."""

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_machine.installers.command_service import CommandServiceInstaller
from emp_machine.installers.redis_daemon import RedisDaemonInstaller
from emp_machine.installers.webui import A1111ManagementClient
from emp_machine.testing.file_server import FileServer
from emp_machine.testing.packages import quick_python
from emp_machine.testing.repositories import Repository

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, InstallError
from emp_core.services.installer import Installer
from emp_core.services.installing import install
from emp_core.services.launch import ServiceInstance
from emp_core.testing.conformance.installer import InstallerConformance, MakeInstaller

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/health", "/internal/ping") else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
HOSTS = (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.5", "10.0.0.5"), ("::1", "[::1]"))  # noqa: S104
"""Where an instance listens, and how it is reached there."""

LAUNCH = "import pathlib, sys\nif '--exit' in sys.argv: pathlib.Path('prepared').touch(); sys.exit()\n" + SERVER


def made(kind: type[Installer], name: str, folder: Path, **asked: Any) -> Installer:
    return kind(ServiceConfig(name, dict(os.environ), {"installer_config": asked}), folder)


def instance(tmp_path: Path, *ports: int, gpu: int | None = None) -> ServiceInstance:
    return ServiceInstance("it-1", "it", gpu, 1, "127.0.0.1", ports, tmp_path, tmp_path / "state")


class TestRedis(InstallerConformance):
    essential = ("redis.conf", "server")

    @pytest.fixture
    def make_installer(self) -> MakeInstaller:
        return lambda folder: made(RedisDaemonInstaller, "redis", folder)

    @pytest.fixture
    def make_failing_installer(self, monkeypatch: pytest.MonkeyPatch) -> MakeInstaller:
        pytest.skip("finding a server has no source that a mapping could name wrongly")


class TestCommandService(InstallerConformance):
    kills = 3
    essential = ("repo/server.py", "made.txt", "weights/one.bin")
    ignored = ("*/.git/*", "*.emp*")

    @pytest.fixture
    def asked(self, repository: Repository, files: FileServer) -> dict[str, Any]:
        repository.commit(server_py=SERVER)
        return {
            "repo_url": repository.url,
            "files": [files.entry("weights/one.bin", b"1" * 1000)],
            "install": [{"run": ["{python}", "-c", "open('made.txt', 'w').write('made')"], "makes": ["made.txt"]}],
            "command": ["{python}", "{repo}/server.py", "--port", "{port}"],
            "health": "/health",
        }

    @pytest.fixture
    def make_installer(self, asked: dict[str, Any]) -> MakeInstaller:
        return lambda folder: made(CommandServiceInstaller, "it", folder, **asked)

    @pytest.fixture
    def make_failing_installer(self, asked: dict[str, Any]) -> MakeInstaller:
        broken = {**asked, "install": [["{python}", "-c", "raise SystemExit('no')"]]}
        return lambda folder: made(CommandServiceInstaller, "it", folder, **broken)


class TestA1111(InstallerConformance):
    kills = 2
    essential = ("stable-diffusion-webui/launch.py",)
    ignored = ("*/.git/*", "venv/bin/*", "venv/pyvenv.cfg", "*.pyc", "*/__pycache__*", "*.emp*")

    @pytest.fixture
    def make_installer(self, repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> MakeInstaller:
        repository.commit(launch_py=LAUNCH)
        python = quick_python(tmp_path_factory.getbasetemp() / "python")
        return lambda folder: made(
            A1111ManagementClient, "a1111", folder, repo_url=repository.url, branch="main", python=python
        )

    @pytest.fixture
    def make_failing_installer(self, repository: Repository) -> MakeInstaller:
        repository.commit(launch_py=LAUNCH)
        return lambda folder: made(A1111ManagementClient, "a1111", folder, repo_url=repository.url, branch="none")


def test_a_redis_that_is_started_keeps_its_data_in_the_instances_folder(tmp_path: Path):
    launch = made(RedisDaemonInstaller, "redis", tmp_path / "redis", maxmemory="1gb").launch(instance(tmp_path, 6400))
    assert launch is not None
    assert ("--dir", str(tmp_path / "state")) == (launch.argv[-2], launch.argv[-1])
    assert launch.worker_environ == {"HUB_REDIS_URL": "redis://127.0.0.1:6400"}


def asked_at(installer: Installer, host: str, port: int, folder: Path) -> str | None:
    """Where an instance that listens there is asked for its health."""
    launch = installer.launch(ServiceInstance("it", "it", 0, 0, host, (port,), folder, folder / "state"))
    assert launch is not None
    assert launch.health is not None
    return launch.health.url


def test_the_webui_is_asked_where_it_listens(tmp_path: Path):
    webui = made(A1111ManagementClient, "a1111", tmp_path)
    for host, asked in HOSTS:
        assert asked_at(webui, host, 7860, tmp_path) == f"http://{asked}:7860/internal/ping"


def test_a_command_is_asked_where_it_listens(tmp_path: Path):
    service = made(CommandServiceInstaller, "it", tmp_path, command=["serve"], health="/health")
    for host, asked in HOSTS:
        assert asked_at(service, host, 8000, tmp_path) == f"http://{asked}:8000/health"


def test_a_command_gets_what_the_plan_gives(tmp_path: Path):
    words = ["{python}", "--host={host}", "{port}", "{port2}", "{gpu}", "{number}", "{state}", "{name}", "{folder}"]
    service = made(CommandServiceInstaller, "it", tmp_path, command=words, environ={"WHERE": "{host}:{port}"})
    launch = service.launch(instance(tmp_path, 8000, 8001, gpu=3))
    assert launch is not None
    told = (
        sys.executable,
        "--host=127.0.0.1",
        "8000",
        "8001",
        "3",
        "1",
        str(tmp_path / "state"),
        "it-1",
        str(tmp_path),
    )
    assert launch.argv == told
    assert launch.environ == {"WHERE": "127.0.0.1:8000"}
    assert launch.health is not None
    assert (launch.health.url, launch.health.port) == (None, 8000)


def test_a_service_that_does_not_answer_is_no_success(tmp_path: Path):
    command = ["{python}", "-c", "print('I will not', flush=True); import time; time.sleep(60)"]
    service = made(CommandServiceInstaller, "it", tmp_path, command=command, health="/", start_s=0.5)
    with pytest.raises(InstallError, match=r"it did not answer within 0\.5 s"):
        anyio.run(install, service)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "command: expected a list of words"),
        ({"command": ["x", "{prt}"]}, "{prt} is not known"),
        ({"command": ["x"], "health": "health"}, "expected a path that begins with /"),
        ({"command": ["x"], "install": ["make it"]}, "install[0]: expected a list of words"),
        ({"command": ["x"], "start_s": -1}, "start_s: expected a number of 0 or more"),
        ({"command": ["x"], "environ": []}, "environ: expected an object"),
    ],
)
def test_mistakes_of_a_command_are_told(tmp_path: Path, asked: dict[str, Any], told: str):
    with pytest.raises(ConfigError) as caught:
        made(CommandServiceInstaller, "it", tmp_path, **asked).steps()
    assert told in "; ".join(caught.value.problems)
