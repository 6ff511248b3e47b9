"""The services of a plan are installed in order, once, with a log and a list of what was fetched."""

import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from emp_machine.installing.run import dry_run_services, install_services, installed_file
from emp_machine.plan.model import MachinePlan, ServicePlan
from emp_machine.testing.file_server import FileServer
from emp_machine.testing.repositories import Repository

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, InstallError
from emp_core.plugins.manager import load_plugins
from emp_core.services.installer import InstallEvent, InstallEventKind
from emp_core.services.schema import ServiceEntry, ServiceType
from emp_core.testing.conformance.folders import contents_of

ANSWERS = ["{python}", "-m", "http.server", "--bind", "{host}", "{port}"]
PLUGINS = load_plugins()


def service(root: Path, name: str, **asked: Any) -> ServicePlan:
    asked = {"command": ANSWERS, **asked}
    installer = "CommandServiceInstaller"
    entry = ServiceEntry("none", ServiceType.PM2, installer=installer, installer_config=asked)
    config = ServiceConfig(name, dict(os.environ), entry.options)
    return ServicePlan(name, entry, installer, root / "services" / name, config)


def plan(root: Path, *services: ServicePlan) -> MachinePlan:
    return MachinePlan("box", root, (), services, ())


def installed(made: MachinePlan, **how: Any) -> list[tuple[str, InstallEvent]]:
    told: list[tuple[str, InstallEvent]] = []
    anyio.run(lambda: install_services(made, PLUGINS, lambda name, event: told.append((name, event)), **how))
    return told


def test_services_are_installed_in_the_plans_order_with_a_log_each(tmp_path: Path):
    told = installed(plan(tmp_path, service(tmp_path, "one"), service(tmp_path, "two")))
    assert [name for name, event in told if event.kind is InstallEventKind.VERIFIED] == ["one", "two"]
    assert "verified" in (tmp_path / "logs" / "install-two.log").read_text()


def test_what_was_verified_and_is_still_there_is_not_started_again(tmp_path: Path):
    made = plan(tmp_path, service(tmp_path, "one"))
    installed(made)
    assert {event.kind for _, event in installed(made)} == {InstallEventKind.SKIPPED}
    changed = plan(tmp_path, service(tmp_path, "one", start_s=100))
    assert InstallEventKind.VERIFIED in {event.kind for _, event in installed(changed)}
    assert InstallEventKind.BEGUN in {event.kind for _, event in installed(changed, again=True)}


def test_everything_that_was_fetched_stands_in_the_lock_file_without_secrets(tmp_path: Path, files: FileServer):
    entry = files.entry("one.bin", b"1")
    installed(plan(tmp_path, service(tmp_path, "one", files=[entry], environ={"TOKEN": "hf_secretsecret"})))
    written = json.loads(installed_file(tmp_path).read_text())
    assert written["one"]["fetched"] == {entry["url"]: f"sha256:{entry['sha256']}"}
    assert written["one"]["verified_at"]
    assert "hf_secretsecret" not in installed_file(tmp_path).read_text()


def test_a_service_that_fails_does_not_keep_the_others_from_coming(tmp_path: Path):
    made = plan(tmp_path, service(tmp_path, "bad", install=[["false"]]), service(tmp_path, "good"))
    with pytest.raises(InstallError, match="'run command 1' of the installation of bad failed"):
        installed(made)
    assert json.loads(installed_file(tmp_path).read_text())["good"]["verified_at"]
    assert "failed" in (tmp_path / "logs" / "install-bad.log").read_text()
    with pytest.raises(InstallError, match="2 services could not be installed"):
        installed(plan(tmp_path, *(service(tmp_path, name, install=[["false"]]) for name in ("bad", "worse"))))


def test_only_what_is_named_is_installed_and_unknown_names_are_told(tmp_path: Path):
    made = plan(tmp_path, service(tmp_path, "one"), service(tmp_path, "two"))
    assert {name for name, _ in installed(made, only=["two"])} == {"two"}
    with pytest.raises(ConfigError, match="nothing is installed here for three") as caught:
        installed(made, only=["three"])
    assert "one, two" in (caught.value.hint or "")


def test_a_dry_run_tells_every_command_and_changes_nothing(tmp_path: Path):
    made = plan(tmp_path / "root", service(tmp_path / "root", "one", install=[["make", "all"]]))
    lines = list(dry_run_services(made, PLUGINS))
    assert lines[0].startswith("# one, in ")
    assert lines[-1].endswith("make all")
    assert not (tmp_path / "root").exists()


def beside(what: Callable[[], object]) -> int:
    """Do something in another process; gives its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: the child uses none of them
        child = os.fork()
    if child:
        return child
    try:
        what()
    finally:
        os._exit(0)


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody has asked for it yet
    except psutil.NoSuchProcess:
        return True


def test_what_a_killed_installation_left_running_is_ended_by_the_next(tmp_path: Path):
    """Its commands are in sessions of their own, and go on without it: pip, for minutes."""
    os.mkfifo(tmp_path / "says")
    script = f"test -e begun && exit; touch begun; echo $$ > {tmp_path}/says; exec sleep 600"
    made = plan(tmp_path / "root", service(tmp_path / "root", "one", install=[["sh", "-c", script]]))
    child = beside(lambda: installed(made))
    left = psutil.Process(int((tmp_path / "says").read_text()))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not ended(left)
    told = installed(made)
    assert ended(left)
    assert InstallEventKind.VERIFIED in {event.kind for _, event in told}


def test_killed_ten_times_at_random_moments_it_ends_as_if_it_never_was(
    tmp_path: Path, repository: Repository, files: FileServer
):
    """In one folder, later while all is done again: each time something else is half done."""
    repository.commit(server_py="print('serves')", data__one_txt="1" * 100_000)
    asked = {
        "repo_url": repository.url,
        "files": [files.entry("weights/one.bin", b"1" * 5_000_000), files.entry("two.bin", b"2")],
        "install": [{"run": ["sh", "-c", "echo begins; cp repo/server.py made.py; echo ends"], "makes": ["made.py"]}],
    }
    whole, made = (plan(tmp_path / name, service(tmp_path / name, "one", **asked)) for name in ("whole", "killed"))
    points = len(installed(whole))
    dice, kills = random.Random(0), 0
    for _ in range(10):
        left, again = dice.randrange(points // 2), kills > 1

        def tell(_service: str, _event: InstallEvent) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        child = beside(lambda: anyio.run(lambda: install_services(made, PLUGINS, tell, again=again)))  # noqa: B023
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert kills > 5
    installed(made)
    found, expected = (contents_of(one.root / "services", ignored=("*/.git/*", "*/.emp/*")) for one in (made, whole))
    assert found == expected
    assert "one/weights/one.bin" in found
    assert json.loads(installed_file(made.root).read_text())["one"]["verified_at"]


def test_two_installations_of_one_machine_do_not_meet(tmp_path: Path):
    holder = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX)"
        "; os.write(f, b'process 42'); print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", holder, str(tmp_path / "installing.lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InstallError, match="process 42 installs in"):
            installed(plan(tmp_path, service(tmp_path, "one")))
        process.stdin.close()
    installed(plan(tmp_path, service(tmp_path, "one")))
