"""A machine's processes are started in their order, healed, and given up with a reason."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from emp_machine.plan.model import Process
from emp_machine.processes.by_hand import note_ended_by_hand
from emp_machine.processes.care import Patience, Standing
from emp_machine.processes.interface import ProcessState
from emp_machine.processes.probing import health_probes
from emp_machine.processes.remains import find_remains
from emp_machine.processes.supervisor import SupervisorManager
from emp_machine.processes.watching import Watcher

from emp_core.testing.ports import free_port

from .rig import lives, subject, until

QUICK = Patience(first_s=0.05, most_s=0.1, failures_max=3, calm_s=30, misses_max=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "machine"
    folder.mkdir()
    return folder


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SupervisorManager]:
    opened = SupervisorManager(root, os.environ)
    opened.look_every_s = 0.1  # type: ignore[misc]  # of this one alone
    yield opened
    await opened.kill()


@asynccontextmanager
async def watched(manager: SupervisorManager, *processes: Process, **options: Any) -> AsyncIterator[Watcher]:
    await manager.apply(processes)
    async with httpx.AsyncClient(trust_env=False) as client, anyio.create_task_group() as group:
        watcher = Watcher(manager, processes, health_probes(processes, client), patience=QUICK, **options)
        group.start_soon(watcher.run)
        yield watcher
        group.cancel_scope.cancel()


def standings(watcher: Watcher) -> dict[str, Standing]:
    return {name: verdict.standing for name, verdict in watcher.verdicts.items()}


def all_well(watcher: Watcher) -> bool:
    return set(standings(watcher).values()) == {Standing.WELL}


async def pid_of(manager: SupervisorManager, name: str) -> int:
    [found] = await manager.status(name)
    assert found.pid is not None
    return found.pid


async def test_a_worker_starts_when_its_service_answers(manager: SupervisorManager, root: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    sick.touch()
    service = subject(root, "service", "--sick", str(sick), port=free_port())
    worker = subject(root, "worker", needs=("service",))
    async with watched(manager, service, worker) as watcher:
        await until(
            lambda: (root / "logs" / "service.log").exists() and "begun" in (root / "logs" / "service.log").read_text()
        )
        assert standings(watcher) == {"service": Standing.STARTING, "worker": Standing.WAITING}
        assert watcher.verdicts["worker"].reason == "waits for service"
        assert not watcher.settled
        sick.unlink()
        await until(lambda: all_well(watcher))
        assert watcher.settled


async def test_a_killed_process_and_one_that_hangs_are_healed(manager: SupervisorManager, root: Path) -> None:
    killed, hung = subject(root, "killed"), subject(root, "hung", port=free_port(), stop_s=0.2)
    async with watched(manager, killed, hung) as watcher:
        await until(lambda: all_well(watcher))
        pids = [await pid_of(manager, "killed"), await pid_of(manager, "hung")]
        os.kill(pids[0], signal.SIGKILL)
        os.kill(pids[1], signal.SIGSTOP)
        await until(lambda: all_well(watcher) and all(one.restarts == 1 for one in watcher.verdicts.values()))
        assert not any(lives(pid) for pid in pids)


async def test_what_never_works_is_given_up_with_a_reason_and_the_rest_goes_on(
    manager: SupervisorManager, root: Path
) -> None:
    broken = subject(root, "broken", "--last", "no such model", port=free_port())
    lost = subject(root, "lost", needs=("broken",))
    service, worker = subject(root, "service", port=free_port()), subject(root, "worker", needs=("service",))
    async with watched(manager, broken, lost, service, worker) as watcher:
        await until(lambda: watcher.settled)
        assert standings(watcher) == {
            "broken": Standing.GIVEN_UP,
            "lost": Standing.WAITING,
            "service": Standing.WELL,
            "worker": Standing.WELL,
        }
        assert watcher.verdicts["lost"].reason.startswith("it needs broken, which was given up: ")
        await until(lambda: down_for_good(manager, "broken"))


async def down_for_good(manager: SupervisorManager, name: str) -> bool:
    """Supervisor may have given it up by itself before it was told to."""
    [found] = await manager.status(name)
    return found.state in (ProcessState.STOPPED, ProcessState.FAILED)


async def stopped(manager: SupervisorManager, name: str) -> bool:
    [found] = await manager.status(name)
    return found.state is ProcessState.STOPPED


async def test_a_program_that_is_not_there_is_given_up(manager: SupervisorManager, root: Path) -> None:
    missing = subject(root, "missing", port=free_port(), argv=("no-such-program",))
    async with watched(manager, missing) as watcher:
        await until(lambda: standings(watcher) == {"missing": Standing.GIVEN_UP})
        assert "no-such-program cannot be run: No such file" in (root / "logs" / "missing.log").read_text()


async def test_processes_that_run_already_are_adopted(manager: SupervisorManager, root: Path) -> None:
    one = subject(root, "one", port=free_port())
    async with watched(manager, one) as watcher:
        await until(lambda: all_well(watcher))
    pid = await pid_of(manager, "one")
    async with watched(manager, one) as watcher:
        await until(lambda: all_well(watcher))
        assert await pid_of(manager, "one") == pid
        assert watcher.verdicts["one"].restarts == 0


async def test_a_killed_manager_is_started_again_with_all_that_it_kept(manager: SupervisorManager, root: Path) -> None:
    one = subject(root, "one", port=free_port())
    async with watched(manager, one) as watcher:
        await until(lambda: all_well(watcher))
        orphan, before = await pid_of(manager, "one"), await manager.pid()
        assert before is not None
        os.kill(before, signal.SIGKILL)

        async def back() -> bool:
            return await manager.pid() not in (None, before) and all_well(watcher)

        await until(back)
        assert not lives(orphan)
        assert len(await find_remains(root)) == 1


async def test_what_somebody_stops_is_left_alone(manager: SupervisorManager, root: Path) -> None:
    async with watched(manager, subject(root, "one")) as watcher:
        await until(lambda: all_well(watcher))
        await manager.stop("one")
        await until(lambda: standings(watcher) == {"one": Standing.STOPPED})
        await manager.start("one")
        await until(lambda: all_well(watcher))


async def test_what_somebody_restarts_did_not_end_by_itself(manager: SupervisorManager, root: Path) -> None:
    seen: set[int | None] = set()
    async with watched(manager, subject(root, "one"), on_look=lambda found: seen.add(found[0].pid)) as watcher:
        await until(lambda: all_well(watcher))
        before = await pid_of(manager, "one")
        note_ended_by_hand(root, await manager.status("one"))
        os.kill(before, signal.SIGKILL)  # nobody can look between its end and the start of the next one

        await until(lambda: seen - {None, before} and all_well(watcher))
        assert watcher.verdicts["one"].restarts == 0


async def test_what_somebody_stopped_stays_so_when_the_manager_dies(manager: SupervisorManager, root: Path) -> None:
    one, two = subject(root, "one"), subject(root, "two")
    async with watched(manager, one, two) as watcher:
        await until(lambda: all_well(watcher))
        await manager.stop("one")
        await until(lambda: standings(watcher) == {"one": Standing.STOPPED, "two": Standing.WELL})
        keeper, before = await manager.pid(), await pid_of(manager, "two")
        assert keeper is not None
        os.kill(keeper, signal.SIGKILL)

        async def back() -> bool:
            found = [one.pid for one in await manager.status() if one.name == "two"]
            return found not in ([], [None], [before]) and watcher.verdicts["two"].standing is Standing.WELL

        await until(back)
        assert standings(watcher) == {"one": Standing.STOPPED, "two": Standing.WELL}
        assert await stopped(manager, "one")


async def test_the_watcher_tells_what_it_sees(manager: SupervisorManager, root: Path) -> None:
    pids: dict[str, int | None] = {}
    await manager.apply([subject(root, "one")])
    watcher = Watcher(
        manager,
        [subject(root, "one")],
        {},
        patience=QUICK,
        on_look=lambda found: pids.update({one.name: one.pid for one in found}),
    )
    async with anyio.create_task_group() as group:
        group.start_soon(watcher.run)
        await until(lambda: all_well(watcher))
        assert pids == {"one": await pid_of(manager, "one")}
        await manager.stop("one")
        await until(lambda: pids == {"one": None})
        group.cancel_scope.cancel()
