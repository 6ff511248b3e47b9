"""Ollama is installed without root, with its models, and may be killed anywhere meanwhile."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_machine.testing.file_server import FileServer, file_server
from emp_ollama.installer import OllamaDaemonInstaller

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import InstallError
from emp_core.services.installer import InstallEvent, InstallEventKind
from emp_core.services.installing import install
from emp_core.services.launch import ServiceInstance
from emp_core.testing.conformance.installer import InstallerConformance, MakeInstaller

PROGRAM = """#!/usr/bin/env python3
# Answers as Ollama does, and keeps the models that it pulled in OLLAMA_MODELS.
import http.server, json, os, pathlib, sys
assert sys.argv[1:] == ["serve"]
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
blobs = pathlib.Path(os.environ["OLLAMA_MODELS"]) / "blobs"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        models = [{"name": one.name.replace("--", ":"), "digest": "d" * 64} for one in sorted(blobs.glob("*"))]
        self.answer({"/api/version": {"version": "0"}, "/api/tags": {"models": models}}.get(self.path))

    def do_POST(self):
        model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        if model.startswith("none"):
            self.answer({"error": "pull model manifest: file does not exist"})
            return
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / model.replace(":", "--")).write_text("layers")
        self.answer({"status": "pulling", "digest": "sha256:1", "total": 2, "completed": 1}, {"status": "success"})

    def answer(self, *lines):
        body = b"".join(json.dumps(line).encode() + b"\\n" for line in lines)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


def archive() -> bytes:
    """What a release is: a program in bin, libraries beside it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text, mode in (("bin/ollama", PROGRAM, 0o755), ("lib/ollama/libggml.so", "library", 0o644)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), mode
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def asked(files: FileServer) -> dict[str, Any]:
    entry = files.entry("ollama-linux-amd64.tgz", archive())
    return {"url": entry["url"], "sha256": entry["sha256"], "default_model": "llama3.2:1b", "models": ["tiny"]}


def installer(asked: dict[str, Any], folder: Path, **more: Any) -> OllamaDaemonInstaller:
    return OllamaDaemonInstaller(
        ServiceConfig("ollama", dict(os.environ), {"installer_config": {**asked, **more}}), folder
    )


class TestConformance(InstallerConformance):
    kills = 3
    essential = ("program/bin", "models/blobs")
    ignored = ("*/.emp*",)

    @pytest.fixture
    def make_installer(self, asked: dict[str, Any]) -> MakeInstaller:
        return lambda folder: installer(asked, folder)

    @pytest.fixture
    def make_failing_installer(self, asked: dict[str, Any]) -> MakeInstaller:
        return lambda folder: installer(asked, folder, models="none:1b")


def test_models_are_pulled_with_progress_and_reported(asked: dict[str, Any], tmp_path: Path):
    events: list[InstallEvent] = []
    anyio.run(install, installer(asked, tmp_path / "it"), events.append)
    pins = {event.text: event.pin for event in events if event.kind is InstallEventKind.FETCHED}
    assert pins["model llama3.2:1b"] == pins["model tiny:latest"] == f"sha256:{'d' * 64}"
    fractions = [e.fraction for e in events if e.step == "pull its models" and e.kind is InstallEventKind.PROGRESS]
    assert fractions == sorted(fractions, key=lambda one: one or 0.0)
    assert 0.25 in fractions


def test_a_model_that_the_registry_does_not_have_is_named(asked: dict[str, Any], tmp_path: Path):
    with pytest.raises(InstallError, match="cannot pull none:latest"):
        anyio.run(install, installer(asked, tmp_path / "it", models="none"))


def test_a_program_that_is_there_already_is_not_fetched(asked: dict[str, Any], tmp_path: Path, files: FileServer):
    program = tmp_path / "ollama"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    anyio.run(install, installer(asked, tmp_path / "it", binary=str(program)))
    assert files.requests == []


def test_an_instance_listens_where_the_plan_says_and_leads_its_workers_there(asked: dict[str, Any], tmp_path: Path):
    instance = ServiceInstance("ollama", "ollama", None, 0, "127.0.0.1", (11500,), tmp_path, tmp_path / "state")
    launch = installer(asked, tmp_path).launch(instance)
    assert launch.environ["OLLAMA_HOST"] == "127.0.0.1:11500"
    assert launch.worker_environ == {"OLLAMA_HOST": "http://127.0.0.1:11500"}
    assert launch.health is not None
    assert launch.health.url == "http://127.0.0.1:11500/api/version"


@pytest.mark.parametrize(
    ("host", "listens", "at"),
    [
        ("0.0.0.0", "0.0.0.0:11434", "127.0.0.1:11434"),  # noqa: S104
        ("10.0.0.5", "10.0.0.5:11434", "10.0.0.5:11434"),
        ("::1", "[::1]:11434", "[::1]:11434"),
    ],
)
def test_an_instance_is_asked_where_it_listens(tmp_path: Path, host: str, listens: str, at: str):
    instance = ServiceInstance("ollama", "ollama", None, 0, host, (11434,), tmp_path, tmp_path / "state")
    launch = installer({}, tmp_path).launch(instance)
    assert launch.environ["OLLAMA_HOST"] == listens
    assert launch.worker_environ["OLLAMA_HOST"] == f"http://{at}"
    assert launch.health is not None
    assert launch.health.url == f"http://{at}/api/version"
