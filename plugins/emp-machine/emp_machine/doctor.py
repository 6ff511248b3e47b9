"""What `emp machine doctor` checks of a box. Nothing is started or changed, but for a file that is written and removed."""

import platform
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import anyio.to_thread
from attrs import frozen

from emp_core.cli.checks import Check, State, check_redis, failed
from emp_core.config import Settings, environment, load_settings
from emp_core.errors import ConfigError, EmpError
from emp_core.queue.server_binary import find_server
from emp_machine.gpus import found_gpus
from emp_machine.holding import holder
from emp_machine.plan.aliases import with_aliases
from emp_machine.plan.here import look_around, plan_here
from emp_machine.plan.model import MachinePlan
from emp_machine.plan.redis import REDIS
from emp_machine.processes.choosing import find_pm2
from emp_machine.processes.folder import surroundings
from emp_machine.settings import MachineSettings, root_of

__all__ = ["check_box"]

_ROOM = 30 * 10**9
_NO_ROOM = 10**9
_PROGRAM_S = 10.0


@frozen
class _Box:
    environ: Mapping[str, str]
    settings: Settings
    machine: MachineSettings
    root: Path


async def check_box(env_file: Path | None) -> AsyncIterator[Check]:
    """The checks, one after another."""
    yield _versions()
    try:
        environ, _ = with_aliases(look_around(env_file).environ)
        settings, machine = Settings.from_env(environ), load_settings(MachineSettings, environ)
    except ConfigError as error:
        yield failed("settings", error)
        return
    box = _Box(environ, settings, machine, root_of(settings, machine))
    yield Check("settings", State.OK, "every variable that is set can be used")
    yield await anyio.to_thread.run_sync(_gpus, box)
    yield _folder(box.root)
    yield _disk(box.root)
    yield _held(box.root)
    for check in await anyio.to_thread.run_sync(lambda: list(_managers(box))):
        yield check
    yield await anyio.to_thread.run_sync(_git)
    plan, check = await anyio.to_thread.run_sync(_plan, env_file)
    yield check
    yield await _redis(box, plan)


def _versions() -> Check:
    shown = f"emp-machine {version('emp-machine')}, emp-core {version('emp-core')}, Python {platform.python_version()}"
    return Check("versions", State.OK, f"{shown}, {platform.platform()}")


def _gpus(box: _Box) -> Check:
    if box.machine.gpu_mode == "mock":
        count = 1 if box.settings.num_gpus is None else box.settings.num_gpus
        return Check("driver", State.OK, f"GPU_MODE=mock: {count} GPUs are pretended, and no driver is asked")
    found, trouble = found_gpus()
    if trouble:
        return Check("driver", State.FAIL, trouble[0], "see what nvidia-smi says", tuple(trouble[1:]))
    if not found:
        hint = "on a machine with GPUs install NVIDIA's driver (nvidia-smi must work); in a container, give it the GPUs"
        return Check("driver", State.WARN, "no NVIDIA driver was found, so there are no GPUs", hint)
    shown = ", ".join(f"{gpu.index}: {gpu.model or 'unknown'} ({(gpu.memory_mb or 0) / 1024:.0f} GB)" for gpu in found)
    if box.settings.num_gpus is not None and box.settings.num_gpus != len(found):
        return Check("driver", State.WARN, shown, f"NUM_GPUS={box.settings.num_gpus} says otherwise; unset it")
    return Check("driver", State.OK, shown)


def _folder(root: Path) -> Check:
    there = _existing(root)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        hint = "make it writable for this user, or set EMP_MACHINE_ROOT to another folder"
        return Check("folder", State.FAIL, f"{root} cannot be written: {error.strerror or error}", hint)
    return Check("folder", State.OK, f"{root} can be written")


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(_existing(root)).free
    message = f"{free / 1e9:,.1f} GB free for {root}"
    hint = "free some space, or set EMP_MACHINE_ROOT to a disk with room"
    if free < _NO_ROOM:
        return Check("disk", State.FAIL, message, hint)
    if free < _ROOM:
        return Check("disk", State.WARN, message, f"models need much room: {hint}")
    return Check("disk", State.OK, message)


def _held(root: Path) -> Check:
    held = holder(root)
    return Check("machine", State.OK, f"{root} is not held" if held is None else f"{root} is held by {held}")


def _managers(box: _Box) -> Iterator[Check]:
    node = shutil.which("node", path=box.environ.get("PATH"))
    shown = "" if node is None else _said(node, "--version")
    yield Check("node", State.OK, f"{node}: {shown}" if shown else "not installed; only PM2 needs it")
    pm2 = find_pm2(box.environ)
    install = "npm install --global pm2"
    if pm2 is not None:
        yield Check("pm2", State.OK, str(pm2))
    elif box.machine.process_manager == "pm2":
        hint = f"install it with `{install}`, or set EMP_PROCESS_MANAGER=supervisor"
        yield Check("pm2", State.FAIL, "EMP_PROCESS_MANAGER=pm2, and it is not installed", hint)
    else:
        yield Check("pm2", State.OK, f"not installed; supervisor is used. `{install}` installs it")
    yield Check("supervisor", State.OK, f"version {version('supervisor')}")


def _git() -> Check:
    git = shutil.which("git")
    if git is None:
        hint = "install it (Debian, Ubuntu: apt install git)"
        return Check("git", State.FAIL, "not installed; services that come from repositories need it", hint)
    return Check("git", State.OK, f"{git}: {_said(git, '--version')}")


def _plan(env_file: Path | None) -> tuple[MachinePlan | None, Check]:
    """The plan finds what stands in the way: ports that are taken, too few GPUs, unknown installers."""
    try:
        plan = plan_here(env_file)
    except EmpError as error:
        return None, failed("plan", error)
    ports = sorted(instance.port for service in plan.services for instance in service.instances if instance.port)
    shown = ", ".join(map(str, ports)) or "none"
    message = f"{len(plan.instances)} instances and {len(plan.workers)} workers; ports, all free or ours: {shown}"
    return plan, Check("plan", State.OK, message, problems=plan.notes)


async def _redis(box: _Box, plan: MachinePlan | None) -> Check:
    if box.settings.redis_url is not None:
        return await check_redis(box.settings)
    try:
        server = await anyio.to_thread.run_sync(find_server)
    except EmpError as error:
        return failed("redis", error)
    own = [] if plan is None else [one.endpoint for one in plan.instances if one.service == REDIS]
    where = f" at {own[0]}" if own else ""
    return Check("redis", State.OK, f"HUB_REDIS_URL is not set: the machine gets its own{where} ({server})")


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.exists())


def _said(program: str, *arguments: str) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(  # noqa: S603 - a program from PATH, asked for its version
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=_PROGRAM_S,
            check=False,
            env=surroundings(environment()),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return (done.stdout or done.stderr).partition("\n")[0].strip()
