"""Finding out whether an installed service answers: it is started for a moment, on a free port, and asked."""

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
import httpx
from anyio.abc import Process

from emp_core.errors import InstallError
from emp_core.log.redaction import hide_secrets
from emp_core.services.installer import Step
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance

__all__ = ["Ask", "answers", "is_healthy", "require_done"]

Ask = Callable[[str], Awaitable[None]]
"""Asks a running instance more; told its URL: scheme, host and port."""

_LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 0.1
_LINES_TOLD = 20
_LAST_WORDS_S = 1.0
_TIE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
"""1 is PR_SET_PDEATHSIG, 9 SIGKILL: prctl(2). It outlives the exec."""
_TEXT_BYTES = 2**16


def _free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as taken:
        taken.bind((_LOOPBACK, 0))
        port: int = taken.getsockname()[1]
        return port


async def require_done(steps: Iterable[Step], name: str) -> None:
    """Look whether an installation is whole, before what it installed is asked.

    Args:
        name: what people call the service.

    Raises:
        InstallError: a step is not done.
    """
    for step in steps:
        if not await step.is_done():
            raise InstallError(f"{name} is not installed: {step.name!r} is not done", hint="install it again")


async def is_healthy(client: httpx.AsyncClient, health: HealthCheck, host: str = _LOOPBACK) -> bool:
    """Whether an instance answers as its check asks. Never raises for what the instance does."""
    try:
        with anyio.fail_after(health.timeout_s):
            if health.url is None:
                stream = await anyio.connect_tcp(host, health.port)
                await stream.aclose()
                return True
            async with client.stream("GET", health.url) as answer:
                return answer.status_code < 400
    except (OSError, TimeoutError, httpx.HTTPError, anyio.BrokenResourceError):
        return False


async def answers(
    launch: Callable[[ServiceInstance], Launch | None],
    service: str,
    folder: Path,
    environ: Mapping[str, str],
    ports: int = 1,
    ask: Ask | None = None,
) -> None:
    """Start an instance, wait until it is healthy, and end it. Its own state is kept in a folder that goes with it.

    Args:
        launch: the installer's.
        environ: variables of the instance besides those that it launches with.
        ports: how many it listens on.
        ask: what more to ask it while it runs.

    Raises:
        InstallError: it cannot be started, ends, or does not answer in time; tells the end of its output.
    """
    state = Path(tempfile.mkdtemp(prefix="emp-probe-"))
    try:
        instance = ServiceInstance(
            f"{service}-probe", service, None, 0, _LOOPBACK, tuple(_free_port() for _ in range(ports)), folder, state
        )
        how = launch(instance)
        if how is not None:
            await _run(how, service, environ, ask)
    finally:
        shutil.rmtree(state, ignore_errors=True)


async def _run(how: Launch, service: str, environ: Mapping[str, str], ask: Ask | None) -> None:
    if shutil.which(how.argv[0]) is None:
        raise InstallError(f"{service} cannot be started: there is no program {how.argv[0]}", hint="install it again")
    try:
        process = await anyio.open_process(
            [*_tied(), *how.argv],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            cwd=how.cwd,
            env={**environ, **how.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
    except OSError as error:
        raise InstallError(
            f"{service} cannot be started: {how.argv[0]}: {error.strerror or error}", hint="install it again"
        ) from error
    output = _Output()
    failure: InstallError | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(output.read, process)
            try:
                if how.health is not None:
                    await _until_healthy(process, how.health, service, output)
                    if ask is not None:
                        await ask(f"http://{_LOOPBACK}:{how.health.port}")
            except InstallError as error:  # not through the group, which would wrap it
                failure = error
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, how.stop_s)
    if failure is not None:
        raise failure


def _tied() -> Sequence[str]:
    """What to put before a command so that it ends with us, even if we are killed. Only Linux knows such a thing."""
    return (sys.executable, "-I", "-S", "-c", _TIE) if sys.platform == "linux" else ()


async def _until_healthy(process: Process, health: HealthCheck, service: str, output: "_Output") -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with anyio.move_on_after(health.start_s):
            while process.returncode is None:
                if await is_healthy(client, health):
                    return
                await anyio.sleep(_LOOK_EVERY_S)
    ended = process.returncode
    if ended is not None:
        with anyio.move_on_after(_LAST_WORDS_S):
            await output.ended.wait()
    what = f"ended with {ended}" if ended is not None else f"did not answer within {health.start_s:g} s"
    said = list(output.lines)
    raise InstallError(
        f"{service} {what}" + (f": {said[-1]}" if said else ""),
        hint="its output says more",
        details={"output": said, "url": health.url or f"port {health.port}"},
    )


class _Output:
    """The last lines that a process says."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_TOLD)
        self.ended = anyio.Event()

    async def read(self, process: Process) -> None:
        """Read until it is silent for good."""
        rest = b""
        if process.stdout is not None:
            async for block in process.stdout:
                *lines, rest = (rest + block)[-_TEXT_BYTES:].split(b"\n")
                self._take(*lines)
        self._take(rest)
        self.ended.set()

    def _take(self, *lines: bytes) -> None:
        self.lines.extend(hide_secrets(line.decode(errors="replace").strip()) for line in lines if line.strip())


async def _end(process: Process, patience_s: float) -> None:

    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with anyio.move_on_after(patience_s):
            await process.wait()
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that it left
    await process.aclose()
