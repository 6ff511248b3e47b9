"""Who listens on a port besides the machine's own processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest
from emp_machine.installers.redis_daemon import RedisDaemonInstaller
from emp_machine.plan.strangers import strangers
from emp_machine.processes.remains import MARK

from emp_core.connectors.base import ServiceConfig
from emp_core.services.installing import install
from emp_core.services.launch import ServiceInstance
from emp_core.testing.ports import free_port

LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="macOS tells it to root alone: run on Linux")


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[int]:
    """The port that a process of this folder's machine listens on."""
    environ = {**os.environ, MARK: f"comfyui-gpu0@{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def test_a_stranger_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = strangers(tmp_path)[listener.getsockname()[1]]
    assert found == f"{psutil.Process().name()} (process {os.getpid()})"


def test_the_machines_own_processes_are_no_strangers_and_those_of_another_machine_are(
    ours: int, tmp_path: Path
) -> None:
    assert ours not in strangers(tmp_path)
    assert ours in strangers(tmp_path / "another")


def test_a_socket_that_only_connects_is_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert client.getsockname()[1] not in strangers(tmp_path)


def test_the_machines_redis_keeps_the_mark_by_which_it_is_known(tmp_path: Path) -> None:
    installer = RedisDaemonInstaller(ServiceConfig("redis", dict(os.environ)), tmp_path / "redis")
    anyio.run(install, installer)
    port = free_port()
    state = tmp_path / "state"
    state.mkdir()
    instance = ServiceInstance("redis", "redis", None, 0, "127.0.0.1", (port,), installer.folder, state)
    environ = {**os.environ, MARK: f"redis@{tmp_path}"}
    argv = installer.launch(instance).argv
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("Ready to accept connections" in line for line in process.stdout)
            assert port in strangers(tmp_path / "another")
            assert port not in strangers(tmp_path)
        finally:
            process.terminate()
