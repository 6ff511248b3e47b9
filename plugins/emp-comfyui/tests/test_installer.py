"""ComfyUI is installed as it is asked for, and may be killed anywhere meanwhile."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_comfyui.installer import ComfyUIManagementClient
from emp_machine.testing.file_server import FileServer, file_server
from emp_machine.testing.packages import quick_python, write_wheel
from emp_machine.testing.repositories import new_repository

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, InstallError
from emp_core.services.installer import InstallEvent, InstallEventKind
from emp_core.services.installing import install
from emp_core.services.launch import ServiceInstance
from emp_core.testing.conformance.installer import InstallerConformance, MakeInstaller

MAIN = """
import argparse, http.server, json, pathlib, tiny, others
parser = argparse.ArgumentParser()
for name in ("listen", "output-directory", "input-directory", "temp-directory", "user-directory"):
    parser.add_argument(f"--{name}")
parser.add_argument("--port", type=int)
parser.add_argument("--disable-auto-launch", action="store_true")
options = parser.parse_args()
assert pathlib.Path("custom_nodes/extra/nodes.py").is_file()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(vars(options)).encode()
        self.send_response(200 if self.path == "/system_stats" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer((options.listen, options.port), Handler).serve_forever()
"""


@pytest.fixture
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return quick_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def asked(tmp_path: Path, files: FileServer, python: str) -> dict[str, Any]:
    """What the mapping says: a ComfyUI of this machine, one repository of custom nodes, two models."""
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "tiny")
    write_wheel(wheels, "others", "2.5")
    comfyui = new_repository(tmp_path / "origin" / "ComfyUI")
    comfyui.commit(main_py=MAIN, requirements_txt="tiny\nothers\n", models__checkpoints__put_here_txt="")
    nodes = new_repository(tmp_path / "origin" / "extra")
    pin = nodes.commit(nodes_py="NODE_CLASS_MAPPINGS = {}\n")
    nodes.commit(nodes_py="broken since")
    return {
        "repo_url": comfyui.url,
        "branch": "main",
        "python": python,
        "pip_options": f"--no-index --find-links {wheels}",
        "custom_nodes": [{"url": nodes.url, "commit": pin}],
        "models": [
            files.entry("checkpoints/one.safetensors", b"1" * 5_000_000),
            files.entry("loras/two.safetensors", b"2" * 1000),
        ],
    }


def installer(asked: dict[str, Any], folder: Path, **more: Any) -> ComfyUIManagementClient:
    config = ServiceConfig("comfyui", dict(os.environ), {"installer_config": {**asked, **more}})
    return ComfyUIManagementClient(config, folder)


class TestConformance(InstallerConformance):
    essential = ("ComfyUI/main.py", "ComfyUI/custom_nodes/extra/nodes.py", "ComfyUI/models/loras/two.safetensors")
    ignored = ("*/.git/*", "venv/bin/*", "venv/pyvenv.cfg", "*.pyc", "*/__pycache__*", "*/RECORD", "*/.emp*")

    @pytest.fixture
    def make_installer(self, asked: dict[str, Any]) -> MakeInstaller:
        return lambda folder: installer(asked, folder)

    @pytest.fixture
    def make_failing_installer(self, asked: dict[str, Any], files: FileServer) -> MakeInstaller:
        missing = {"url": f"{files.url}/none", "path": "none.safetensors"}
        return lambda folder: installer({**asked, "models": [*asked["models"], missing]}, folder)


def installed(asked: dict[str, Any], folder: Path) -> list[InstallEvent]:
    events: list[InstallEvent] = []
    anyio.run(install, installer(asked, folder), events.append)
    return events


def test_everything_that_was_fetched_is_pinned_and_the_pin_of_a_custom_node_holds(
    asked: dict[str, Any], tmp_path: Path
):
    pins = {
        event.text: event.pin for event in installed(asked, tmp_path / "it") if event.kind is InstallEventKind.FETCHED
    }
    assert (tmp_path / "it/ComfyUI/custom_nodes/extra/nodes.py").read_text() == "NODE_CLASS_MAPPINGS = {}\n"
    [node] = asked["custom_nodes"]
    assert pins[node["url"]] == node["commit"]
    assert len(pins[asked["repo_url"]]) == 40
    assert (pins["pip tiny"], pins["pip others"]) == ("1.0", "2.5")
    assert pins[asked["models"][0]["url"]] == f"sha256:{asked['models'][0]['sha256']}"


def test_two_instances_share_no_folder_that_they_write_to(asked: dict[str, Any], tmp_path: Path):
    launches = [
        installer(asked, tmp_path).launch(
            ServiceInstance(f"comfyui-gpu{n}", "comfyui", n, 0, "127.0.0.1", (8188 + n,), tmp_path, tmp_path / f"s{n}")
        )
        for n in range(2)
    ]
    ours, theirs = ({word for word in launch.argv if word.startswith(str(tmp_path / "s"))} for launch in launches)
    assert len(ours) == len(theirs) == 4
    assert not ours & theirs
    assert [launch.worker_environ["COMFYUI_PORT"] for launch in launches] == ["8188", "8189"]
    assert [launch.health.url for launch in launches if launch.health] == [
        "http://127.0.0.1:8188/system_stats",
        "http://127.0.0.1:8189/system_stats",
    ]


def test_custom_nodes_may_be_left_out_and_listed_in_a_file(asked: dict[str, Any], tmp_path: Path):
    (tmp_path / "nodes.json").write_text(
        '{"custom_nodes": ["https://host/a.git", {"url": "https://host/b", "ref": "v1"}]}'
    )
    names = [step.name for step in installer(asked, tmp_path, custom_nodes=str(tmp_path / "nodes.json")).steps()]
    assert "get the custom nodes a" in names
    assert "install what b needs" in names
    names = [step.name for step in installer(asked, tmp_path, custom_nodes_enabled="false").steps()]
    assert not any("custom nodes" in name for name in names)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"custom_nodes": [{"ref": "main"}]}, r"custom_nodes\[0\]: expected an object with url"),
        ({"custom_nodes": [{"url": "https://host/..", "name": "../up"}]}, "does not do for a folder"),
        ({"custom_nodes": ["https://h/a", "https://h/a.git"]}, "a second repository is to become 'a'"),
        (
            {"custom_nodes": [{"url": "https://h/a", "script": "/bin/sh"}]},
            "is not a file of the repository's own folder",
        ),
        ({"custom_nodes_enabled": "perhaps"}, "custom_nodes_enabled: expected true or false"),
        ({"brnch": "main"}, "brnch: no such key; known are"),
        ({"custom_nodes": "/no/such/file.json"}, "cannot be read"),
    ],
)
def test_mistakes_in_the_mapping_are_told_with_their_place(asked: dict[str, Any], tmp_path: Path, more: Any, told: str):
    with pytest.raises(ConfigError) as caught:
        installer(asked, tmp_path, **more).steps()
    assert re.search(told, "; ".join(caught.value.problems))


def test_a_program_that_does_not_start_is_told_with_its_last_words(asked: dict[str, Any], tmp_path: Path):
    broken = new_repository(tmp_path / "origin" / "broken")
    broken.commit(main_py="raise SystemExit('no CUDA here')", requirements_txt="")
    with pytest.raises(InstallError, match="comfyui ended with 1: no CUDA here"):
        installed({**asked, "repo_url": broken.url, "custom_nodes": [], "models": []}, tmp_path / "it")


@pytest.mark.parametrize(("host", "at"), [("0.0.0.0", "127.0.0.1"), ("10.0.0.5", "10.0.0.5"), ("::1", "[::1]")])  # noqa: S104
def test_an_instance_is_asked_where_it_listens(tmp_path: Path, host: str, at: str):
    instance = ServiceInstance("comfyui-gpu0", "comfyui", 0, 0, host, (8188,), tmp_path, tmp_path / "state")
    launch = installer({}, tmp_path).launch(instance)
    assert launch.argv[launch.argv.index("--listen") + 1] == host
    assert launch.health is not None
    assert launch.health.url == f"http://{at}:8188/system_stats"
    assert launch.worker_environ["COMFYUI_HOST"] == at
