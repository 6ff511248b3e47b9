"""Running what a page shows: files, Python and commands, in their order.

A command that is nothing but a call of ``emp`` runs in this process: a process of its own for each would take most of the time.
``cd`` holds for the commands after it, and ``pip install -e`` makes a project known as an installation would, without a network.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import structlog
from anyio.from_thread import start_blocking_portal

from emp_core import Settings, SyncJobQueue
from emp_core.cli.main import run as emp
from emp_core.plugins import preparing
from emp_core.testing.ports import free_port
from emp_core.worker.worker import Worker

from .pages import Block

__all__ = ["Runner", "matches"]

_LIMIT_S = 60.0
_BIN = Path(sys.executable).parent


class Runner:
    """Runs the blocks of one page in one folder.

    Args:
        folder: an empty folder.
        environ: variables for what is run; nothing of the surroundings gets in but what is needed to find programs.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        path = f"{_BIN}{os.pathsep}{os.defpath}"
        home = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": path, "LANG": "C.UTF-8"}
        self.environ = {**home, **environ, "PYTHONPATH": str(folder)}
        self._here = folder
        self._names: dict[str, Any] = {}
        self._printed = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, block: Block) -> None:
        """Do with a block what its language and its marks ask for."""
        if "comfyui" in block.marks:
            self.environ.update(self._stack.enter_context(pretended_comfyui()))
        with contextlib.ExitStack() as stack:
            if "worker" in block.marks:
                stack.enter_context(echo_worker(self.environ))
            match block.language:
                case _ if "file" in block.marks:
                    self._write(block)
                case "python":
                    self._python(block)
                case "text" if "output" in block.marks:
                    problem = matches(block.text, self._printed)
                    assert problem is None, f"{block}: {problem}"
                case "sh" if "background" in block.marks:
                    self._stack.enter_context(self._background(block))
                case "sh" if "run" in block.marks:
                    self._command(block, block.text)
                case "console" if "run" in block.marks:
                    for command, expected in commands_of(block):
                        printed = self._command(block, command)
                        problem = matches(expected, printed)
                        assert problem is None, f"{block}: $ {command}\n{problem}"

    def _write(self, block: Block) -> None:
        target = self._folder / block.marks["file"]
        assert target.resolve().is_relative_to(self._folder.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")
        if target == self._folder / "pyproject.toml":
            self._install(self._folder)

    def _install(self, folder: Path) -> None:
        """Make a project's code and entry points known to what runs after it."""
        _describe(folder)
        self.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(folder), *self._installed()]))

    def _installed(self) -> list[str]:
        return self.environ["PYTHONPATH"].split(os.pathsep)

    def _python(self, block: Block) -> None:
        if "continues" not in block.marks:
            self._names = {"__name__": "__main__"}
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), _environ(self.environ), _logs_as_before(quiet=True):
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, self._names))  # noqa: S307 - our own documents
            else:
                exec(code, self._names)  # noqa: S102 - our own documents
        self._printed = output.getvalue()

    def _command(self, block: Block, command: str) -> str:
        match shlex.split(_without_assignments(command)):
            case ["cd", place]:
                self._here = self._here / place
                return ""
            case ["pip", "install", "-e", _]:
                self._install(self._here)
                return ""
            case ["emp", *_] if not _SHELL.search(_QUOTED.sub("", command)):
                code, printed = self._in_process(command)
            case _:
                code, printed = self._in_shell(command)
        wanted = int(block.marks["run"] or 0)
        assert code == wanted, f"{block}: exit code {code} of {command}\n{printed}"
        return printed

    def _in_shell(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._here,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
        )
        return done.returncode, done.stdout

    def _in_process(self, command: str) -> tuple[int, str]:
        _, *arguments = shlex.split(_without_assignments(command))
        output = io.StringIO()
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            contextlib.chdir(self._here),
            _environ({**self.environ, **_assignments(command)}),
            _logs_as_before(),
            _importable(self._installed()),
        ):
            code = emp(arguments)
        return code, output.getvalue()

    @contextlib.contextmanager
    def _background(self, block: Block) -> Iterator[None]:
        service = "url" in block.marks
        port = {"PORT": str(free_port())} if service else {}
        if service:
            self.environ[block.marks["url"]] = f"http://127.0.0.1:{port['PORT']}"
        log = self._folder / f"background-{block.line}.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                ["bash", "-c", f"exec {_without_assignments(block.text)}"],
                cwd=self._here,
                env={**self.environ, **port, **_assignments(block.text)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            if not any(line.startswith("Ready") for line in process.stdout):
                raise AssertionError(f"{block}: it ended before it was ready\n{log.read_text()}")
            try:
                if not service:
                    self._until_a_service_is_ready()
                yield
            finally:
                process.send_signal(signal.SIGINT if service else signal.SIGTERM)
                process.communicate(timeout=_LIMIT_S)
        assert process.returncode == 0, log.read_text()

    def _until_a_service_is_ready(self) -> None:
        """A worker is ready before its services are; a reader is not that quick."""
        with SyncJobQueue.connect(settings=Settings.from_env(self.environ)) as queue:
            deadline = time.monotonic() + _LIMIT_S
            while all(o.withdrawn for w in queue.workers() for o in w.capabilities.services.values()):
                assert time.monotonic() < deadline, "no service became ready"
                time.sleep(0.01)


_QUOTED = re.compile(r"'[^']*'")
_SHELL = re.compile(r"[|&;<>()$`*?]")
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(\S+)\s+")


def _assignments(command: str) -> dict[str, str]:
    found = {}
    while assignment := _ASSIGNMENT.match(command):
        found[assignment[1]] = assignment[2]
        command = command[assignment.end() :]
    return found


def _without_assignments(command: str) -> str:
    while assignment := _ASSIGNMENT.match(command):
        command = command[assignment.end() :]
    return command


@contextlib.contextmanager
def echo_worker(environ: Mapping[str, str]) -> Iterator[None]:
    """A worker that serves ``echo``, in a thread of its own."""
    [worker] = Worker.all_from_env({**environ, "WORKERS": "echo", "WORKER_ID": "docs", "EMP_GRACE_S": "5"})
    with (
        _logs_as_before(quiet=True),
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(worker),
    ):
        ended, _ = portal.start_task(worker.run)
        try:
            yield
        finally:
            portal.call(worker.drain)
            ended.result(_LIMIT_S)


@contextlib.contextmanager
def pretended_comfyui() -> Iterator[dict[str, str]]:
    """A server that behaves like ComfyUI, and the variables that say where it is."""
    from emp_comfyui.testing import FakeComfyUI  # of a plugin: only pages that need it do

    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(FakeComfyUI()) as server:
        yield {"COMFYUI_HOST": server.host, "COMFYUI_PORT": str(server.port)}


def _describe(folder: Path) -> None:
    """Write of a project what an installation would: its entry points."""
    read = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{read['name'].replace('-', '_')}-{read['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {read['name']}\nVersion: {read['version']}\n")
    groups = read["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def _logs_as_before(*, quiet: bool = False) -> Iterator[None]:
    """What a command or an example sets up for logs does not outlive it; ``quiet``: logs are not part of the output."""
    root, own = logging.getLogger(), logging.getLogger("emp")
    was_configured, saved = structlog.is_configured(), structlog.get_config()
    handlers, root_level, own_level = root.handlers[:], root.level, own.level
    if quiet:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)  # not by assignment: loggers remember what they were asked
        own.setLevel(own_level)
        structlog.configure(**saved)
        if not was_configured:
            structlog.reset_defaults()


@contextlib.contextmanager
def _importable(folders: list[str]) -> Iterator[None]:
    """What was written into the folders is found, and forgotten afterwards."""
    known = set(sys.modules)
    before = sys.path[:]
    sys.path[:0] = folders
    preparing._preparer_of.cache_clear()  # a process knows the plugins that were there when it first looked
    try:
        yield
    finally:
        sys.path[:] = before
        preparing._preparer_of.cache_clear()
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(tuple(f"{one}{os.sep}" for one in folders)):
                del sys.modules[name]


@contextlib.contextmanager
def _environ(environ: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it is shown to print."""
    assert block.text.startswith("$ "), f"{block}: a console block begins with a command: $ …"
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", "").partition("\n")
        yield command, output


def matches(expected: str, printed: str) -> str | None:
    """None if what was printed is what the page shows, with … for anything; otherwise what is wrong."""
    lines = [line.rstrip() for line in expected.strip().splitlines()]
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else _line_pattern(line) for line in lines)
    got = "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())
    if re.fullmatch(pattern, got):
        return None
    return f"the page shows\n{expected}\nand this was printed\n{printed}"


def _line_pattern(line: str) -> str:
    # How wide a column is depends on what stands in it.
    return ".*".join(re.sub(r"(\\ ){2,}", " +", re.escape(part)) for part in line.split("…")) + r"\n"
