"""Doing what an installer says: its steps in order, from wherever the last time ended, verified at the end."""

import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio.abc import ByteReceiveStream, Process

from emp_core.errors import ConfigError, EmpError, InstallError
from emp_core.log.redaction import hide_secrets
from emp_core.services.installer import Installer, InstallEvent, InstallEventKind, Step, shell_line

__all__ = ["dry_run", "install"]

_END_S = 5.0
_LAST_WORDS_S = 1.0
_LINE_BYTES = 16 * 2**10
_LINES_TOLD = 20

Tell = Callable[[InstallEvent], None]


def dry_run(installer: Installer) -> Iterator[str]:
    """What `install` would do, line by line: each step's name as a comment, then its commands. Looks at nothing."""
    for step in _steps(installer):
        yield f"# {step.name}"
        yield from step.commands()


async def install(installer: Installer, tell: Tell = lambda _: None, *, again: bool = False) -> None:
    """Bring an installation to its end, from wherever it is, and verify it.

    Cancelling stops it where it is; calling it again goes on there. Two calls for one folder at a time are the caller's
    to prevent.

    Args:
        tell: told of everything that happens, at once; must return at once.
        again: do the steps that are done, too.

    Raises:
        ConfigError: the service's entry of the mapping cannot be used.
        InstallError: a step failed, or the installation does not work; ``details["step"]`` names the step.
    """
    for step in _steps(installer):
        with _told_as_ours(installer, step.name):
            if not again and await step.is_done():
                tell(InstallEvent(InstallEventKind.SKIPPED, step.name))
                continue
            tell(InstallEvent(InstallEventKind.BEGUN, step.name))
            await step.do(_Context(step.name, installer.config.environ, tell))
            if not await step.is_done():
                raise InstallError(
                    "it went to its end and is not done", hint="this is a mistake of the installer: report it there"
                )
            tell(InstallEvent(InstallEventKind.DONE, step.name))
    with _told_as_ours(installer, ""):
        await installer.verify()
    tell(InstallEvent(InstallEventKind.VERIFIED))


def _steps(installer: Installer) -> Sequence[Step]:
    steps = tuple(installer.steps())
    names = [step.name for step in steps]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InstallError(f"the installer of {installer.config.name} has two steps named {twice[0]!r}")
    return steps


@contextmanager
def _told_as_ours(installer: Installer, step: str) -> Iterator[None]:
    """Say of every failure which step of which installation it was."""
    what = f"step {step!r} of the installation of" if step else "the installation of"
    try:
        yield
    except ConfigError:
        raise
    except EmpError as error:
        raise InstallError(
            f"{what} {installer.config.name} failed: {error.message}",
            hint=error.hint,
            details={**error.details, "service": installer.config.name, "step": step, "cause": error.code},
        ) from error
    except Exception as error:  # a step is a plugin's code, and runs into whatever the machine has in store
        said = hide_secrets(f"{type(error).__name__}: {error}")
        raise InstallError(
            f"{what} {installer.config.name} failed: {said}",
            details={"service": installer.config.name, "step": step, "cause": type(error).__name__},
        ) from error


class _Context:
    """The `StepContext` of one step."""

    def __init__(self, step: str, environ: Mapping[str, str], tell: Tell) -> None:
        self._step = step
        self._environ = environ
        self._tell = tell

    def progress(self, fraction: float, message: str = "") -> None:
        self._tell(InstallEvent(InstallEventKind.PROGRESS, self._step, message, min(1.0, max(0.0, fraction))))

    def log(self, line: str) -> None:
        self._tell(InstallEvent(InstallEventKind.LOG, self._step, hide_secrets(line)))

    def fetched(self, what: str, pin: str) -> None:
        self._tell(InstallEvent(InstallEventKind.FETCHED, self._step, hide_secrets(what), pin=pin))

    async def run(
        self, argv: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        line = shell_line(argv, cwd=cwd, environ=environ)
        self._tell(InstallEvent(InstallEventKind.COMMAND, self._step, line))
        try:
            process = await anyio.open_process(
                list(argv),
                stdin=DEVNULL,  # nobody is there to answer a question
                stdout=PIPE,
                stderr=STDOUT,
                cwd=cwd,
                env={**self._environ, **(environ or {})},
                start_new_session=True,  # so that its children can be ended with it
            )
        except OSError as error:
            raise InstallError(
                f"{argv[0]} cannot be run: {error.strerror or error}", hint=f"is {argv[0]} installed and on PATH?"
            ) from error
        said = await self._read_to_the_end(process)
        if process.returncode:
            raise InstallError(
                f"`{line}` ended with {process.returncode}" + (f": {said[-1]}" if said else ""),
                details={"command": line, "returncode": process.returncode, "output": list(said)},
            )

    async def _read_to_the_end(self, process: Process) -> Sequence[str]:
        said: deque[str] = deque(maxlen=_LINES_TOLD)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, process, said)
                await process.wait()
                # What it leaves running, a daemon for example, may keep its output open for ever.
                group.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_S
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    await _end(process)
                await process.aclose()
        return said

    async def _listen(self, process: Process, said: deque[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async for line in _lines(process.stdout):
            said.append(hide_secrets(line))
            self.log(line)


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[str]:
    """Lines of text; one that is too long comes in pieces. What is no UTF-8 is replaced."""
    waiting = b""
    async for chunk in stream:
        *whole, waiting = (waiting + chunk).replace(b"\r", b"\n").split(b"\n")
        if len(waiting) > _LINE_BYTES:
            whole, waiting = [*whole, waiting], b""
        for line in whole:
            if line:
                yield line.decode("utf-8", "replace")
    if waiting:
        yield waiting.decode("utf-8", "replace")


async def _end(process: Process) -> None:
    """End a command and its children: asked first, then made to."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with anyio.move_on_after(_END_S):
            await process.wait()
            return
