"""What holds of every process manager."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import psutil
import pytest
from attrs import evolve
from emp_machine.processes.choosing import find_pm2, open_manager
from emp_machine.processes.interface import ProcessManager, ProcessState
from emp_machine.processes.remains import find_remains

from emp_core.errors import ConfigError

from .rig import lives, subject, until

NO_PM2 = "PM2 was not found: `make .venv/node/.ready` installs it; it needs npm"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "machine"
    folder.mkdir()
    return folder


@pytest.fixture(params=["supervisor", "pm2"])
async def manager(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[ProcessManager]:
    """A process manager of this test's own; whatever the test leaves running is ended."""
    if request.param == "pm2" and find_pm2(os.environ) is None:
        pytest.skip(NO_PM2)
    opened = open_manager(root, request.param, os.environ)
    yield opened
    await opened.kill()


async def pid_of(manager: ProcessManager, name: str) -> int:
    """The process's pid, once there is one."""
    [found] = await manager.status(name)

    async def running() -> bool:
        nonlocal found
        [found] = await manager.status(name)
        return found.state is ProcessState.RUNNING and found.pid is not None

    await until(running)
    assert found.pid is not None
    return found.pid


async def said(manager: ProcessManager, name: str) -> list[str]:
    return [line.text async for line in manager.logs(name)]


async def until_begun(manager: ProcessManager, *names: str) -> None:
    """Wait until the processes have installed what they heed signals with."""
    for name in names:

        async def begun(name: str = name) -> bool:
            return any(line.startswith("begun") for line in await said(manager, name))

        await until(begun)


async def test_a_process_is_started_watched_over_and_ended(manager: ProcessManager, root: Path) -> None:
    assert await manager.status() == ()
    assert not await manager.runs()

    await manager.apply([subject(root, "one"), subject(root, "two")])
    assert [(one.name, one.state, one.pid) for one in await manager.status()] == [
        ("one", ProcessState.STOPPED, None),
        ("two", ProcessState.STOPPED, None),
    ]

    await manager.start("one")
    pid = await pid_of(manager, "one")
    await until_begun(manager, "one")
    assert lives(pid)
    assert {one.name for one in await find_remains(root)} == {"one"}

    os.kill(pid, signal.SIGKILL)

    async def healed() -> bool:
        [found] = await manager.status("one")
        return found.state is ProcessState.RUNNING and found.pid not in (None, pid)

    await until(healed)
    assert not lives(pid)

    await manager.stop("one")
    [found] = await manager.status("one")
    assert (found.state, found.pid) == (ProcessState.STOPPED, None)
    assert await find_remains(root) == []

    await manager.shutdown()
    assert not await manager.runs()


async def test_ending_asks_first_and_takes_all_children_along(manager: ProcessManager, root: Path) -> None:
    polite = subject(root, "polite", "--child")
    deaf = subject(root, "deaf", "--deaf", "--child", stop_s=0.5)
    await manager.apply([polite, deaf])
    await manager.start()
    pids = [await pid_of(manager, "polite"), await pid_of(manager, "deaf")]
    await until_begun(manager, "polite", "deaf")
    assert len(await find_remains(root)) == 4

    await manager.stop()

    assert not any(lives(pid) for pid in pids)
    assert await find_remains(root) == []
    assert "ended" in await said(manager, "polite")
    assert "ended" not in await said(manager, "deaf")


async def test_what_is_as_before_runs_on_and_what_changed_is_ended(manager: ProcessManager, root: Path) -> None:
    same, changed, gone = (subject(root, name) for name in ("same", "changed", "gone"))
    await manager.apply([same, changed, gone])
    await manager.start()
    pids = {name: await pid_of(manager, name) for name in ("same", "changed", "gone")}

    await manager.apply([evolve(changed, environ={"SAID": "more"}), same, subject(root, "new")])

    found = {one.name: one for one in await manager.status()}
    assert list(found) == ["changed", "same", "new"]
    assert found["same"].pid == pids["same"]
    assert found["changed"].state is ProcessState.STOPPED
    assert found["new"].state is ProcessState.STOPPED
    assert not lives(pids["changed"])
    assert not lives(pids["gone"])
    await manager.start("changed")
    await until(lambda: said_more(root))


def said_more(root: Path) -> bool:
    return "begun more" in (root / "logs" / "changed.log").read_text()


async def test_processes_get_their_variables_as_they_are_and_no_secret_of_the_user(
    manager: ProcessManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEBODYS_TOKEN", "secret")
    odd = """a 'b' "c" ; d # e %f $g `h` \\ {"i": "j"} ä"""
    await manager.apply([subject(root, "one", environ={"ODD": odd, "EMPTY": ""})])
    await manager.start()
    pid = await pid_of(manager, "one")
    await until_begun(manager, "one")
    environ = psutil.Process(pid).environ()
    assert environ["ODD"] == odd
    assert environ["EMPTY"] == ""
    assert "SOMEBODYS_TOKEN" not in environ


async def test_another_program_finds_the_manager_and_what_it_runs(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one")])
    await manager.start()
    pid = await pid_of(manager, "one")

    other = open_manager(root, "auto", os.environ)
    assert other.kind == manager.kind
    assert [one.pid for one in await other.status()] == [pid]
    await other.apply([subject(root, "one")])
    assert [one.pid for one in await other.status()] == [pid]
    await other.shutdown()
    assert not lives(pid)
    assert await manager.status() == ()


async def test_what_a_killed_manager_leaves_is_ended_before_anything_starts(
    manager: ProcessManager, root: Path
) -> None:
    await manager.apply([subject(root, "one")])
    await manager.start()
    orphan = await pid_of(manager, "one")
    await until_begun(manager, "one")
    keeper = await manager.pid()
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)

    async def gone() -> bool:
        return not await manager.runs()

    await until(gone)
    assert lives(orphan)

    await manager.apply([subject(root, "one")])

    assert not lives(orphan)
    await manager.start()
    assert await pid_of(manager, "one") != orphan


async def test_a_manager_whose_folder_was_removed_is_ended_all_the_same(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one")])
    await manager.start()
    process, keeper = await pid_of(manager, "one"), await manager.pid()
    await until_begun(manager, "one")
    shutil.rmtree(root)
    await manager.shutdown()
    assert keeper is not None
    assert not lives(process)
    assert not lives(keeper)


async def test_one_that_ends_again_and_again_tells_its_last_words(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one", "--last", "no such model at https://me:secret@hub")])
    await manager.start()

    async def told() -> bool:
        [found] = await manager.status("one")
        return found.state in (ProcessState.STARTING, ProcessState.FAILED) and "no such model" in found.reason

    await until(told)
    [found] = await manager.status("one")
    assert "secret" not in found.reason
    assert not any("secret" in line for line in await said(manager, "one"))


async def test_unknown_names_are_refused_before_anything_is_done(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one")])
    with pytest.raises(ConfigError, match=r"no process 'two'.*there are: one"):
        await manager.start("one", "two")
    assert [one.state for one in await manager.status()] == [ProcessState.STOPPED]


async def test_logs_are_followed(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one"), subject(root, "two")])
    await manager.start("one")
    await until_begun(manager, "one")
    lines = manager.logs(lines=5, follow=True)
    with anyio.fail_after(20):
        first = await anext(lines)
        assert (first.name, first.text.strip()) == ("one", "begun")
        await manager.start("two")
        second = await anext(lines)
    assert (second.name, second.text.strip()) == ("two", "begun")
    await lines.aclose()


async def test_a_path_too_long_for_a_socket_will_do(manager: ProcessManager, tmp_path: Path) -> None:
    root = tmp_path / ("long" * 30)
    root.mkdir()
    far = open_manager(root, manager.kind, os.environ)
    try:
        await far.apply([subject(root, "one")])
        await far.start()
        await pid_of(far, "one")
    finally:
        await far.shutdown()
    assert await find_remains(root) == []


async def test_its_files_can_be_read_by_nobody_else(manager: ProcessManager, root: Path) -> None:
    await manager.apply([subject(root, "one", environ={"HUB_REDIS_URL": "redis://:secret@hub"})])
    shown = [
        path
        for path in (root / "run").rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and "secret" in path.read_text(errors="replace")
    ]
    assert shown == []
    assert (root / "run").stat().st_mode & 0o077 == 0
