"""`emp machine up`, and the commands beside it, as the processes that they are."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from emp_machine.holding import hold, holder
from emp_machine.processes.remains import find_remains

from .box import EMP, Box, Up
from .rig import lives

NOTHING_WORKS = (sys.executable, "-c", "raise SystemExit('no such model')")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Box:
    return Box(tmp_path_factory.mktemp("box"), {"EMP_PROCESS_MANAGER": "supervisor"})


@pytest.fixture(scope="module")
def up(box: Box) -> Iterator[Up]:
    """A box that is up, for all tests that leave it so."""
    with box.up() as up:
        up.ready()
        yield up
        assert up.end() == 0


def nothing_runs(root: Path) -> bool:
    return anyio.run(find_remains, root) == []


def test_a_second_one_is_refused_and_says_who_holds_the_machine(box: Box, up: Up) -> None:
    second = box.emp("machine", "up")
    assert second["code"] == 2
    assert second["error"]["code"] == "machine_busy"
    assert second["error"]["details"]["pid"] == up.process.pid
    assert second["error"]["details"]["since"].startswith("20")
    assert str(up.process.pid) in second["error"]["message"]


def test_the_status_tells_how_processes_stand_and_who_watches_them(box: Box, up: Up) -> None:
    data = box.emp("machine", "status", "comfyui", "workers")["data"]
    assert (data["manager"], data["held_by"]["pid"]) == ("supervisor", up.process.pid)
    assert [(one["name"], one["state"], one["standing"], one["gpu"]) for one in data["processes"]] == [
        ("comfyui-gpu0", "running", "well", 0),
        ("comfyui-gpu1", "running", "well", 1),
        ("worker-comfyui-gpu0", "running", "well", 0),
        ("worker-comfyui-gpu1", "running", "well", 1),
    ]
    shown = subprocess.run([*EMP, "machine", "status"], env=box.environ, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[0].split()[:4] == ["PROCESS", "STATE", "STANDING", "PID"]
    assert f"`emp machine up` watches them (process {up.process.pid}, since " in shown.stderr


def test_a_health_check_ends_as_the_processes_stand(box: Box, up: Up, tmp_path: Path) -> None:
    check = [*EMP, "machine", "status", "--check"]
    assert subprocess.run(check, env=box.environ, capture_output=True).returncode == 0
    elsewhere = {**box.environ, "EMP_MACHINE_ROOT": str(tmp_path / "nothing runs here")}
    assert subprocess.run(check, env=elsewhere, capture_output=True).returncode == 1


def test_unknown_processes_are_refused_with_those_that_there_are(box: Box, up: Up) -> None:
    refused = box.emp("machine", "restart", "comfyui-gpu0", "nonsense")
    assert refused["code"] == 2
    assert "'nonsense'" in refused["error"]["message"]
    assert "comfyui-gpu0, comfyui-gpu1" in refused["error"]["hint"]


def test_processes_are_restarted_one_after_another_and_logs_shown(box: Box, up: Up) -> None:
    before = {one["name"]: one["pid"] for one in box.emp("machine", "status")["data"]["processes"]}
    reloaded = box.emp("machine", "reload", "worker-comfyui-gpu0")["data"]["processes"]
    assert [(one["name"], one["state"]) for one in reloaded] == [("worker-comfyui-gpu0", "running")]
    after = {one["name"]: one["pid"] for one in box.emp("machine", "status")["data"]["processes"]}
    assert {name for name in before if before[name] != after[name]} == {"worker-comfyui-gpu0"}
    logs = subprocess.run(
        [*EMP, "machine", "logs", "workers", "--json"], env=box.environ, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line)["data"] for line in logs.stdout.splitlines()]
    assert {one["name"] for one in lines} == {"worker-comfyui-gpu0", "worker-comfyui-gpu1"}
    assert any('"draining"' in one["text"] for one in lines)


def test_the_box_is_found_to_be_well(box: Box, up: Up) -> None:
    found = {one["name"]: one for one in box.emp("machine", "doctor")["data"]}
    assert {one["state"] for one in found.values()} == {"ok"}
    assert f"process {up.process.pid}" in found["machine"]["message"]
    assert str(box.port) in found["plan"]["message"]


def test_one_that_was_killed_and_is_started_again_takes_over_what_runs(tmp_path: Path) -> None:
    box = Box(tmp_path, {"EMP_PROCESS_MANAGER": "supervisor"})
    with box.up() as first:
        first.ready()
        before = box.emp("machine", "status")["data"]["processes"]
        first.process.kill()
        first.process.wait()
    assert box.emp("machine", "status")["data"]["held_by"] is None
    with box.up() as second:
        second.ready()
        after = box.emp("machine", "status")["data"]["processes"]
        assert [one["pid"] for one in after] == [one["pid"] for one in before]
        # The first signal drains, the second ends everything at once.
        second.process.send_signal(signal.SIGTERM)
        assert second.end(signal.SIGINT) == 0
    assert not any(lives(one["pid"]) for one in before)
    assert nothing_runs(box.root)


def test_a_machine_that_is_about_to_go_drains_and_says_so(tmp_path: Path, redis_url: str, namespace: str) -> None:
    notice = tmp_path / "notice"
    more = {
        "HUB_REDIS_URL": redis_url,
        "EMP_NAMESPACE": namespace,
        "EMP_SPOT_FILE": str(notice),
        "EMP_SPOT_POLL_S": "1",
    }
    box = Box(tmp_path, {"EMP_PROCESS_MANAGER": "supervisor", **more})
    with box.up() as up:
        up.ready()
        notice.write_text("gone in two minutes")
        assert up.process.wait(60) == 0
    assert nothing_runs(box.root)
    [said] = box.emp("machines")["data"]
    assert (said["phase"], said["detail"]) == ("shutdown", "spot notice: gone in two minutes")
    assert box.emp("workers")["data"] == []


def test_a_port_that_a_stranger_has_is_named_with_its_process_which_lives_on(tmp_path: Path) -> None:
    box = Box(tmp_path)
    with socket.create_server(("127.0.0.1", box.port)):
        refused = box.emp("machine", "up")
        assert refused["code"] == 2
        [problem] = refused["error"]["problems"]
        assert f"port {box.port} of comfyui-gpu0 is taken by" in problem
        assert str(os.getpid()) in problem
        doctor = box.emp("machine", "doctor")
        assert doctor["code"] == 2
        assert problem in str(doctor["data"])
        with socket.create_connection(("127.0.0.1", box.port)):
            pass


def test_a_box_on_which_nothing_works_ends_with_the_reasons_and_leaves_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path, {"EMP_PROCESS_MANAGER": "supervisor"}, command=NOTHING_WORKS)
    ended = box.emp("machine", "up")
    assert ended["code"] == 1
    assert ended["error"]["code"] == "machine"
    assert "no worker can run on this machine" in ended["error"]["message"]
    assert "comfyui-gpu0: given up" in ended["error"]["message"]
    assert "no such model" in ended["error"]["message"]
    assert nothing_runs(box.root)
    assert holder(box.root) is None


def test_pm2_that_is_asked_for_and_not_there_is_explained_with_another_way(tmp_path: Path) -> None:
    box = Box(tmp_path, {"PATH": str(tmp_path)})  # no node: PM2 is a script of Node's
    refused = box.emp("machine", "up", "--manager", "pm2")
    assert refused["code"] == 2
    assert "PM2 is not installed" in refused["error"]["message"]
    assert "npm install --global pm2" in refused["error"]["hint"]
    assert "supervisor" in refused["error"]["hint"]


def test_a_folder_that_others_share_stays_as_it_is_and_what_runs_in_it_is_private(tmp_path: Path) -> None:
    shared = tmp_path / "workspace"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    with hold(shared):
        assert shared.stat().st_mode & 0o777 == 0o755
        assert (shared / "run").stat().st_mode & 0o777 == 0o700


def test_whoever_ends_lets_go_of_the_machine(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with hold(tmp_path):
        held = holder(tmp_path)
        assert held is not None
        assert held.pid == os.getpid()
    assert holder(tmp_path) is None
