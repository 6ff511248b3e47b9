"""`emp machine update` brings new code to the workers one after another, and stops where one does not come back."""

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_machine.testing.packages import write_wheel
from emp_machine.updating import our_packages

from emp_core import JobQueue, JobSpec, Settings
from emp_core.jobs.states import JobState

from .echoes import EchoMachine

WORKS = "import sys\nif sys.argv[1:] == ['worker']:\n    print('this is trial {version}', flush=True)\n"
BROKEN = "import os, sys\nif sys.argv[1:] == ['worker']:\n    print('trial {version} is broken', flush=True)\n    os._exit(7)\n"


@pytest.fixture
def machine(tmp_path: Path, redis_url: str, namespace: str) -> Iterator[EchoMachine]:
    """A machine with an environment of its own, which has all that this one has."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
    (packages / "all-that-is-here.pth").write_text("\n".join(lines))
    made = EchoMachine(
        tmp_path, redis_url, namespace, python=str(environment / "bin" / "python"), more={"PIP_NO_INDEX": "1"}
    )
    yield made
    made.end()


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., str]:
    """A plugin that says its version in a worker's log when the worker begins."""

    def write(version: str, source: str = WORKS) -> str:
        folder = tmp_path / "wheels"
        return str(write_wheel(folder, "emp_trial", version, source=source.format(version=version), plugin="trial"))

    return write


def said(machine: EchoMachine, gpu: int) -> list[str]:
    return (machine.worker_folder(gpu) / "logs" / "output.log").read_text().splitlines()


def times(machine: EchoMachine, gpu: int, event: str) -> list[str]:
    """When a worker said something."""
    events: list[dict[str, Any]] = [json.loads(line) for line in said(machine, gpu) if line.startswith("{")]
    return [one["timestamp"] for one in events if one["event"] == event]


def settings_of(machine: EchoMachine) -> Settings:
    return Settings.from_env(machine.environ)


def test_new_code_comes_to_the_workers_one_by_one_and_ends_where_one_does_not_come_back(
    machine: EchoMachine, wheel: Callable[..., str]
) -> None:
    installed = machine.emp("update", wheel("1.0"))
    assert installed["data"] == {
        "changed": [{"name": "emp-trial", "before": None, "after": "1.0"}],
        "reloaded": [],
    }
    assert machine.wgpu("start").returncode == 0
    before = [machine.pid(0), machine.pid(1)]
    assert all(said(machine, gpu)[0] == "this is trial 1.0" for gpu in (0, 1))

    async def while_jobs_run() -> dict[str, Any]:
        async with JobQueue.connect(settings=settings_of(machine)) as queue:
            spec = JobSpec(service_required="echo", payload={"$echo": {"seconds": 3}})
            jobs = await queue.submit_many([spec for _ in range(2)])
            async for event in queue.events(jobs[0].id):
                if event.name == "claimed":
                    break
            updated = await anyio.to_thread.run_sync(machine.emp, "update", wheel("2.0"))
            done = [await queue.wait(job.id) for job in jobs]
            assert [(job.status, job.attempt) for job in done] == [(JobState.COMPLETED, 1)] * 2
            return updated

    updated = anyio.run(while_jobs_run)
    assert updated["data"] == {
        "changed": [{"name": "emp-trial", "before": "1.0", "after": "2.0"}],
        "reloaded": ["worker-echo-gpu0", "worker-echo-gpu1"],
    }
    assert machine.wgpu("status").returncode == 0
    second = [machine.pid(0), machine.pid(1)]
    assert not set(second) & set(before)
    assert all("this is trial 2.0" in said(machine, gpu) for gpu in (0, 1))
    [drained] = times(machine, 1, "draining")
    assert times(machine, 0, "worker started")[-1] < drained, "the second is told to end when the first is back"

    failed = machine.emp("update", wheel("3.0", BROKEN))
    assert failed["code"] == 1
    error = failed["error"]
    assert "the update ended at worker-echo-gpu0" in error["message"]
    assert "trial 3.0 is broken" in error["message"]
    assert "with what they had loaded before: worker-echo-gpu1" in error["message"]
    assert "`emp machine update emp-trial==2.0` goes back" in error["hint"]
    assert error["details"]["left"] == ["worker-echo-gpu1"]
    assert machine.wgpu("status", "1").returncode == 0
    assert machine.pid(1) == second[1], "the other was left alone"

    async def still_works() -> None:
        async with JobQueue.connect(settings=settings_of(machine)) as queue:
            job = await queue.submit(JobSpec(service_required="echo", payload={}))
            with anyio.fail_after(30):
                assert (await queue.wait(job.id)).status is JobState.COMPLETED

    anyio.run(still_works)
    back = machine.emp("update", wheel("2.0"))
    assert back["data"]["reloaded"] == ["worker-echo-gpu0", "worker-echo-gpu1"]
    assert machine.wgpu("status").returncode == 0


def test_without_a_name_the_core_and_all_plugins_are_meant() -> None:
    assert our_packages()[0] == "emp-core"
    assert {"emp-machine", "emp-comfyui"} <= set(our_packages())
    assert len(set(our_packages())) == len(our_packages())


def test_an_environment_without_pip_is_served_by_uv(machine: EchoMachine, wheel: Callable[..., str]) -> None:
    [packages] = (machine.folder / "venv").glob("lib/python*/site-packages")
    (packages / "no-pip.pth").write_text("import sys; sys.modules['pip'] = None")
    machine.more = {"PATH": str(machine.folder)}
    refused = machine.emp("update", wheel("1.0"))
    assert refused["code"] == 2
    assert "has no pip, and uv is not on PATH" in refused["error"]["message"]
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        pytest.skip("uv was not found: `pip install uv`")
    machine.more = {"PATH": str(Path(uv).parent), "UV_OFFLINE": "1", "UV_NO_INDEX": "1"}
    changed = machine.emp("update", wheel("1.0"))["data"]["changed"]
    assert changed == [{"name": "emp-trial", "before": None, "after": "1.0"}]


def test_what_pip_cannot_install_leaves_the_workers_as_they_are(machine: EchoMachine) -> None:
    assert machine.wgpu("start", "0").returncode == 0
    before = machine.pid(0)
    refused = machine.emp("update", "emp-no-such-plugin==1.0")
    assert refused["error"]["code"] == "install"
    assert "pip could not install emp-no-such-plugin==1.0" in refused["error"]["message"]
    assert "No matching distribution" in refused["error"]["message"]
    option = machine.emp("update", "--", "--index-url=http://elsewhere.invalid")
    assert option["code"] == 2
    assert "PIP_INDEX_URL" in option["error"]["hint"]
    assert machine.wgpu("status", "0").returncode == 0
    assert machine.pid(0) == before
