"""`wgpu` and `worker` look after workers by the numbers of their GPUs, and own nothing themselves."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import click
import pytest
from click.testing import CliRunner
from emp_machine.processes.choosing import find_pm2
from emp_machine.processes.remains import find_remains
from emp_machine.wgpu.command import wgpu
from emp_machine.wgpu.telling import NOT_RUNNING, UNKNOWN
from emp_machine.wgpu.worker import worker

from .echoes import NO_PM2, EchoMachine, lives, until

RUNS = r"worker_gpu{gpu} running (\d+) worker-echo-gpu{gpu}\n"
STOPPED = "worker_gpu{gpu} stopped - worker-echo-gpu{gpu}\n"


def pid_in(text: str, gpu: int) -> int:
    found = re.search(RUNS.format(gpu=gpu), text)
    assert found is not None, text
    return int(found[1])


@contextmanager
def stranger() -> Iterator[int]:
    """A process that has nothing to do with the machine."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process.pid
        assert process.poll() is None, "the stranger was ended"
        process.kill()


def test_a_worker_is_started_restarted_and_stopped_by_the_number_of_its_gpu(either: EchoMachine) -> None:
    machine = either
    assert machine.wgpu("status", "0").stdout == STOPPED.format(gpu=0)

    started = machine.wgpu("start", "0")
    assert started.returncode == 0, started.stderr
    first = pid_in(started.stdout, 0)
    assert lives(first)
    assert machine.pid(0) == first
    status = machine.wgpu("status", "0")
    assert (status.returncode, pid_in(status.stdout, 0)) == (0, first)
    both = machine.wgpu("status")
    assert both.returncode == 3
    assert both.stdout.endswith(STOPPED.format(gpu=1))

    assert pid_in(machine.wgpu("start", "0").stdout, 0) == first, "what runs stays as it is"
    anyio.run(until, lambda: "worker started" in machine.said(0))
    second = pid_in(machine.wgpu("restart", "0").stdout, 0)
    assert second != first
    assert not lives(first)
    assert machine.pid(0) == second

    stopped = machine.wgpu("stop", "0")
    assert (stopped.returncode, stopped.stdout) == (0, STOPPED.format(gpu=0))
    assert not lives(second)
    assert machine.pid(0) is None
    assert machine.wgpu("status", "0").returncode == 3
    assert machine.wgpu("stop", "0").returncode == 0, "what does not run counts as stopped"
    assert "worker ended" in machine.said(0)


def test_all_are_meant_where_no_gpu_is_named(machine: EchoMachine) -> None:
    started = machine.wgpu("start")
    assert [pid_in(started.stdout, gpu) for gpu in (0, 1)] == [machine.pid(0), machine.pid(1)]
    status = machine.wgpu("status", "all", "--json")
    assert status.returncode == 0
    assert [(one["gpu"], one["state"], one["pid"]) for one in json.loads(status.stdout)["data"]["workers"]] == [
        (gpu, "running", machine.pid(gpu)) for gpu in (0, 1)
    ]
    assert machine.wgpu("stop", "all").stdout == STOPPED.format(gpu=0) + STOPPED.format(gpu=1)


def test_a_stale_pid_file_never_ends_a_stranger(machine: EchoMachine) -> None:
    machine.wgpu("stop", "0")
    file = machine.worker_folder(0) / "worker.pid"
    with stranger() as pid:
        for command, code in (("status", 3), ("stop", 0), ("start", 0)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{pid}\n")
            assert machine.wgpu(command, "0").returncode == code, command
            assert lives(pid)
            assert machine.pid(0) != pid
        for command in ("restart", "stop"):
            file.write_text(f"{pid}\n")
            assert machine.wgpu(command, "0").returncode == 0
            assert lives(pid)
            assert machine.pid(0) != pid


def test_a_gpu_without_a_worker_is_refused_with_those_that_have_one(machine: EchoMachine) -> None:
    for command in ("start", "stop", "restart", "status", "logs", "setup"):
        refused = machine.wgpu(command, "7")
        assert (refused.returncode, refused.stdout) == (2, ""), command
        assert "there is no worker on GPU 7" in refused.stderr
        assert "there are workers on: 0, 1" in refused.stderr
    nonsense = machine.wgpu("start", "-0x1")
    assert nonsense.returncode == 2
    assert machine.wgpu("start", "first").stderr.endswith("'first': expected the number of a GPU, or all\n")


def test_count_prints_the_number_and_nothing_else(machine: EchoMachine) -> None:
    assert machine.wgpu("count").stdout == "2\n"
    assert machine.wgpu("count", NUM_GPUS="5", WORKERS="").stdout == "5\n"
    assert machine.wgpu("count", GPU_ID="1").stdout == "1\n"
    refused = machine.wgpu("count", GPU_ID="2")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the machine's are: 0, 1" in refused.stderr


def test_logs_are_shown_plain_for_one_worker_and_with_its_folder_for_several(machine: EchoMachine) -> None:
    machine.wgpu("start")
    anyio.run(until, lambda: all("worker started" in machine.said(gpu) for gpu in (0, 1)))
    machine.wgpu("stop")
    one = machine.wgpu("logs", "1", "-n", "1").stdout
    assert re.fullmatch(r'\{.*"worker ended".*\}\n', one)
    several = machine.wgpu("logs", "-n", "1").stdout.splitlines()
    assert [line.split()[0] for line in several] == ["worker_gpu0", "worker_gpu1"]


def test_logs_are_followed_until_interrupted(machine: EchoMachine) -> None:
    log = machine.worker_folder(0) / "logs" / "output.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("before\n")
    command = [machine.python, "-m", "emp_machine.wgpu.command", "logs", "0", "-f", "-n", "1"]
    # In what a shell runs in the background it is ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        following = subprocess.Popen(command, env=machine.environ, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with following:
        assert following.stdout is not None
        assert following.stdout.readline() == "before\n"
        with log.open("a") as file:
            file.write("after\n")
        assert following.stdout.readline() == "after\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130


def test_setup_makes_folders_and_scripts_that_cron_can_call(machine: EchoMachine) -> None:
    made = machine.wgpu("setup", "0", REDIS_API_HOST="redis-api", HUB_REDIS_URL="", COMFY_REPO_URL="https://a.b/c")
    assert made.stdout.split() == [
        str(machine.worker_folder(0)),
        *(str(machine.root / "scripts" / name) for name in ("wgpu", "worker")),
    ]
    assert "REDIS_API_HOST is taken for HUB_REDIS_URL=redis://redis-api:6379" in made.stderr
    assert "COMFY_REPO_URL is taken for COMFYUI_REPO_URL=https://a.b/c" in made.stderr
    assert (machine.worker_folder(0) / "logs").is_dir()
    machine.wgpu("start", "0")

    def from_cron(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        script = machine.root / "scripts" / name
        bare = {"HOME": str(machine.folder), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
        return subprocess.run([script, *arguments], env=bare, cwd="/", capture_output=True, text=True, timeout=60)

    before = machine.pid(0)
    assert pid_in(from_cron("worker", "status", "0").stdout, 0) == before
    restarted = from_cron("worker", "restart", "0")
    assert restarted.returncode == 0, restarted.stderr
    assert machine.pid(0) not in (None, before)
    assert from_cron("worker", "stop", "0").returncode == 0
    assert from_cron("worker", "status", "0").returncode == 3
    assert from_cron("wgpu", "status", "0").stdout == STOPPED.format(gpu=0)
    assert from_cron("worker", "start").returncode == 2
    assert from_cron("worker", "status", "7").returncode == 2


def test_a_pm2_that_cannot_be_found_is_not_taken_for_none(tmp_path: Path, redis_url: str, namespace: str) -> None:
    if find_pm2(os.environ) is None:
        pytest.skip(NO_PM2)
    machine = EchoMachine(tmp_path, redis_url, namespace, "pm2")
    try:
        assert machine.wgpu("start", "0").returncode == 0
        pid = machine.pid(0)
        assert pid is not None
        for command in ("status", "stop", "start"):
            refused = machine.wgpu(command, "0", PATH=str(tmp_path), EMP_PROCESS_MANAGER="auto")
            assert refused.returncode == 2
            assert "PM2 keeps the processes of this machine, and it or Node.js is not on this PATH" in refused.stderr
        assert lives(pid)
    finally:
        machine.end()


def test_a_state_that_nobody_can_tell_has_a_code_of_its_own(tmp_path: Path, redis_url: str, namespace: str) -> None:
    machine = EchoMachine(tmp_path, redis_url, namespace)
    (machine.root / "run").mkdir(parents=True)
    (machine.root / "run" / "processes.json").write_text("{")
    status = machine.wgpu("status")
    assert (status.returncode, status.stdout) == (4, "")
    assert "processes.json cannot be read" in status.stderr


@pytest.mark.parametrize("either", ["supervisor"], indirect=True)  # who keeps the processes makes no difference here
def test_what_wgpu_stopped_stays_so_while_the_machine_is_held(either: EchoMachine) -> None:
    machine = either
    with machine.up():
        assert machine.wgpu("status").returncode == 0
        pids = [machine.pid(0), machine.pid(1)]
        assert None not in pids, "whoever holds the machine writes worker.pid"

        reloaded = machine.emp("reload", "workers")["data"]["processes"]
        assert {one["pid"] for one in reloaded}.isdisjoint(pids)
        pids = [one["pid"] for one in reloaded]

        async def well() -> None:
            await until(lambda: (machine.standing(0), machine.standing(1)) == ("well", "well"))

        anyio.run(well)
        assert machine.restarts() == [0, 0], "nothing has ended by itself"
        assert machine.wgpu("stop", "0").returncode == 0

        async def left_alone_while_the_other_is_healed() -> None:
            assert pids[1] is not None
            os.kill(pids[1], signal.SIGKILL)
            await until(lambda: machine.pid(1) not in (None, pids[1]))
            await until(lambda: (machine.standing(0), machine.standing(1)) == ("stopped", "well"))

        anyio.run(left_alone_while_the_other_is_healed)
        assert machine.wgpu("status", "0").returncode == 3
        assert machine.wgpu("start", "0").returncode == 0

        async def watched_again() -> None:
            await until(lambda: machine.standing(0) == "well")

        anyio.run(watched_again)
        last = [machine.pid(0), machine.pid(1)]
    assert not any(lives(pid) for pid in last if pid is not None)
    assert (machine.pid(0), machine.pid(1)) == (None, None)
    assert anyio.run(find_remains, machine.root) == []


@pytest.mark.parametrize("command", [wgpu, *wgpu.commands.values(), worker], ids=lambda command: command.name)
def test_every_help_shows_examples(command: click.Command) -> None:
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output


def test_every_command_and_exit_code_is_on_the_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reference" / "machine.md").read_text(encoding="utf-8")
    section = page.partition("\n## wgpu\n")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `wgpu (\w+)` \|", section, re.MULTILINE)
    assert sorted(shown) == sorted(wgpu.commands)
    codes = re.findall(r"^\| `(\d)` \|", section, re.MULTILINE)
    assert [int(code) for code in codes] == [0, 1, 2, NOT_RUNNING, UNKNOWN]
