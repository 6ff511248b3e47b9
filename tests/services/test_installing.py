"""Steps of an installer are done in order, from wherever the last time ended, and what goes wrong names its step."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, InstallError
from emp_core.services.installer import Installer, InstallEvent, InstallEventKind, Step, StepContext, shell_line
from emp_core.services.installing import dry_run, install


class Scripted(Step):
    """A step that a test writes; done when its file is there."""

    def __init__(
        self, name: str, folder: Path, do: Callable[..., object] | None = None, *, leaves: bool = True
    ) -> None:
        self.name = name
        self.file = folder / name
        self._do = do
        self._leaves = leaves

    def commands(self) -> Sequence[str]:
        return (f"touch {self.name}",)

    async def is_done(self) -> bool:
        return self.file.exists()

    async def do(self, context: StepContext) -> None:
        if self._do is not None:
            await self._do(context)  # type: ignore[misc]  # a coroutine function of the test
        if self._leaves:
            self.file.touch()


class Given(Installer):
    def __init__(self, folder: Path, *given: Step, broken: Exception | None = None) -> None:
        super().__init__(ServiceConfig("given", dict(os.environ)), folder)
        self.given = given
        self.broken = broken

    def steps(self) -> Sequence[Step]:
        return self.given

    async def verify(self) -> None:
        if self.broken is not None:
            raise self.broken


async def told_by(installer: Installer, **how: bool) -> list[InstallEvent]:
    events: list[InstallEvent] = []
    await install(installer, events.append, **how)
    return events


def in_short(events: list[InstallEvent]) -> list[str]:
    return [f"{event.kind} {event.step}".strip() for event in events]


async def test_steps_are_done_in_order_and_what_was_done_before_is_left_out(tmp_path: Path):
    (tmp_path / "two").touch()
    given = Given(tmp_path, *(Scripted(name, tmp_path) for name in ("one", "two", "three")))
    assert in_short(await told_by(given)) == [
        *("begun one", "done one", "skipped two", "begun three", "done three"),
        "verified",
    ]
    assert in_short(await told_by(given)) == ["skipped one", "skipped two", "skipped three", "verified"]
    assert in_short(await told_by(given, again=True))[:2] == ["begun one", "done one"]


def test_a_dry_run_names_each_step_and_does_nothing(tmp_path: Path):
    given = Given(tmp_path, Scripted("one", tmp_path), Scripted("two", tmp_path))
    assert list(dry_run(given)) == ["# one", "touch one", "# two", "touch two"]
    assert list(tmp_path.iterdir()) == []


async def test_a_step_that_fails_is_named_and_the_next_is_not_begun(tmp_path: Path):
    async def fail(_context: StepContext) -> None:
        raise InstallError("the disk is full", hint="free some space", details={"free": 0})

    given = Given(tmp_path, Scripted("one", tmp_path, fail), Scripted("two", tmp_path))
    with pytest.raises(
        InstallError, match="step 'one' of the installation of given failed: the disk is full"
    ) as caught:
        await told_by(given)
    assert caught.value.hint == "free some space"
    assert caught.value.details == {"free": 0, "service": "given", "step": "one", "cause": "install"}
    assert not (tmp_path / "two").exists()


async def test_a_raw_error_of_a_step_comes_out_as_ours_without_secrets(tmp_path: Path):
    async def fail(_context: StepContext) -> None:
        raise KeyError("https://user:hunter2@host")

    with pytest.raises(InstallError) as caught:
        await told_by(Given(tmp_path, Scripted("one", tmp_path, fail)))
    assert caught.value.details["cause"] == "KeyError"
    assert "hunter2" not in str(caught.value.as_dict())


async def test_a_step_that_is_not_done_after_it_was_done_is_a_mistake_of_the_installer(tmp_path: Path):
    with pytest.raises(InstallError, match="mistake of the installer"):
        await told_by(Given(tmp_path, Scripted("one", tmp_path, leaves=False)))


async def test_an_installation_that_does_not_work_is_told(tmp_path: Path):
    with pytest.raises(InstallError, match="the installation of given failed: no answer") as caught:
        await told_by(Given(tmp_path, Scripted("one", tmp_path), broken=InstallError("no answer")))
    assert caught.value.details["step"] == ""


async def test_a_mistake_in_the_mapping_stays_what_it_is(tmp_path: Path):
    with pytest.raises(ConfigError):
        await told_by(Given(tmp_path, Scripted("one", tmp_path), broken=ConfigError("no such thing")))


async def test_two_steps_of_one_name_are_refused(tmp_path: Path):
    given = Given(tmp_path, Scripted("one", tmp_path), Scripted("one", tmp_path))
    with pytest.raises(InstallError, match="two steps named 'one'"):
        await told_by(given)
    with pytest.raises(InstallError, match="two steps named 'one'"):
        list(dry_run(given))


def running(*argv: str, **how: object) -> Callable[[StepContext], object]:
    async def do(context: StepContext) -> None:
        await context.run(argv, **how)  # type: ignore[arg-type]  # the test's

    return do


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


async def test_a_commands_line_and_output_are_told(tmp_path: Path):
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('50%\\r100%\\n')"
    events = await told_by(Given(tmp_path, Scripted("one", tmp_path, running(*python(program)))))
    [command] = [event.text for event in events if event.kind is InstallEventKind.COMMAND]
    assert command == shell_line(python(program))
    lines = {event.text for event in events if event.kind is InstallEventKind.LOG}
    assert lines == {"out", "err", "50%", "100%"}


async def test_a_command_gets_its_folder_and_variables_and_no_terminal(tmp_path: Path):
    program = (
        "import os, sys; open('seen', 'w').write(os.environ['MINE'] + os.environ['HOME'] + repr(sys.stdin.read()))"
    )
    do = running(*python(program), cwd=tmp_path, environ={"MINE": "mine"})
    await told_by(Given(tmp_path, Scripted("one", tmp_path, do)))
    assert (tmp_path / "seen").read_text() == "mine" + os.environ["HOME"] + "''"


async def test_a_command_that_fails_tells_how_and_its_last_words(tmp_path: Path):
    program = "import sys; [print(n) for n in range(100)]; sys.stdout.flush(); sys.exit('no token=abcdefgh12345')"
    with pytest.raises(InstallError, match="ended with 1: no token=\\(hidden\\)") as caught:
        await told_by(Given(tmp_path, Scripted("one", tmp_path, running(*python(program)))))
    assert caught.value.details["returncode"] == 1
    assert caught.value.details["output"][0] == "81"
    assert len(caught.value.details["output"]) == 20


async def test_a_command_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InstallError, match="no-such-program cannot be run") as caught:
        await told_by(Given(tmp_path, Scripted("one", tmp_path, running("no-such-program"))))
    assert "PATH" in (caught.value.hint or "")


async def test_a_line_without_end_takes_bounded_memory(tmp_path: Path):
    program = "import sys; [sys.stdout.write('x' * 1000) for _ in range(1000)]"
    events = await told_by(Given(tmp_path, Scripted("one", tmp_path, running(*python(program)))))
    pieces = [event.text for event in events if event.kind is InstallEventKind.LOG]
    assert "".join(pieces) == "x" * 1_000_000
    assert max(map(len, pieces)) < 200_000


async def test_a_command_that_leaves_a_daemon_behind_is_not_waited_for_for_ever(tmp_path: Path):
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
        "; print(p.pid, flush=True)"
    )
    with anyio.fail_after(20):
        events = await told_by(Given(tmp_path, Scripted("one", tmp_path, running(*python(program)))))
    [pid] = [event.text for event in events if event.kind is InstallEventKind.LOG]
    os.kill(int(pid), 9)


async def test_cancelling_ends_the_command_and_its_children(tmp_path: Path):
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
        "; print(p.pid, flush=True); p.wait()"
    )
    pids: list[int] = []
    begun = anyio.Event()

    def tell(event: InstallEvent) -> None:
        if event.kind is InstallEventKind.LOG:
            pids.append(int(event.text))
            begun.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(install, Given(tmp_path, Scripted("one", tmp_path, running(*python(program)))), tell)
            await begun.wait()
            group.cancel_scope.cancel()
        while is_running(pids[0]):
            await anyio.lowlevel.checkpoint()
    assert not (tmp_path / "one").exists()


def is_running(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked after yet does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text() if Path("/proc").is_dir() else _answers(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_line_is_as_a_person_would_type_it_and_hides_secrets():
    line = shell_line(["git", "clone", "https://me:secret@host/a b"], cwd=Path("/srv/a b"), environ={"X": "1 2"})
    assert line == "cd '/srv/a b' && X='1 2' git clone 'https://(hidden)@host/a b'"
