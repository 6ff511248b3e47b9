"""What `emp doctor` checks, but for the services."""

import platform
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from attrs import frozen

from emp_core.cli.output import path_of
from emp_core.config import Settings
from emp_core.errors import ConfigError, EmpError, ServiceUnavailable
from emp_core.plugins.loaded import Plugins
from emp_core.queue.addresses import shown_url
from emp_core.queue.connection import opened
from emp_core.queue.embedded import find_server, running
from emp_core.storage.configured import DEFAULT
from emp_core.storage.stores import Stores
from emp_core.worker.gpus import inventory as gpu_inventory
from emp_core.worker.planning import store_openers

__all__ = [
    "Check",
    "State",
    "check_disk",
    "check_gpus",
    "check_plugins",
    "check_redis",
    "check_stores",
    "check_versions",
    "failed",
]

_REDIS_S = 3.0
_STORE_S = 15.0
_OLDEST_REDIS = (7, 0)
_DISK_LOW = 5 * 10**9
_DISK_FULL = 200 * 10**6


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Check:
    """One line of the doctor.

    Attributes:
        hint: what to do.
        unreached: whether it failed because something could not be reached.
    """

    name: str
    state: State
    message: str
    hint: str | None = None
    problems: tuple[str, ...] = ()
    unreached: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        shown: dict[str, Any] = {"name": self.name, "state": self.state.value, "message": self.message}
        shown |= {"problems": list(self.problems)} if self.problems else {}
        return shown | ({"hint": self.hint} if self.hint else {})


def failed(name: str, error: EmpError) -> Check:
    """The check that found this error."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    unreached = error.exit_code == ServiceUnavailable.exit_code
    return Check(name, State.FAIL, error.message, error.hint, problems, unreached)


def check_versions() -> Check:
    """What runs."""
    return Check(
        "versions",
        State.OK,
        f"emp-core {version('emp-core')}, Python {platform.python_version()}, {platform.platform()}",
    )


def check_plugins(plugins: Plugins) -> Iterator[Check]:
    """Every plugin that was found."""
    for one in plugins.listing():
        package = f"{one.distribution} {one.version}".strip() or "an unknown package"
        name = f"plugin {one.name}"
        if one.ok:
            yield Check(name, State.OK, package)
        else:
            hint = "everything else runs; EMP_LOG_LEVEL=debug emp plugins shows where it failed"
            yield Check(name, State.WARN, f"{package} is offline: {one.reason}", hint)


async def check_redis(settings: Settings) -> Check:
    """Whether Redis is there, and fit for the queue. None is started."""
    url = settings.redis_url
    if url is None:
        try:
            server = await running(settings.data_dir)
            if server is None:
                binary = await anyio.to_thread.run_sync(find_server)
                message = f"HUB_REDIS_URL is not set and no embedded one runs; `emp up` starts {binary}"
                return Check("redis", State.OK, message)
        except EmpError as error:
            return failed("redis", error)
        url = server.url
    try:
        async with opened(url, wait_s=min(_REDIS_S, settings.redis_wait_s), settings=settings) as client:
            info: dict[str, Any] = await client.info()
    except EmpError as error:
        return failed("redis", error)
    return _judge_redis(shown_url(url), info)


def _judge_redis(url: str, info: Mapping[str, Any]) -> Check:
    found = str(info.get("valkey_version") or info.get("redis_version", "0"))
    # Valkey tells the Redis version that it is compatible with as redis_version.
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in str(info.get("redis_version", "0")).split(".")[:2])
    message = f"{url}: version {found}, {info.get('used_memory_human', '?')} used"
    if numbers < _OLDEST_REDIS:
        return Check("redis", State.FAIL, f"{message}; it is too old", "use Redis 7.0 or newer, or Valkey")
    problems = []
    if info.get("maxmemory") and info.get("maxmemory_policy", "noeviction") != "noeviction":
        problems.append(f"maxmemory-policy {info['maxmemory_policy']} may drop jobs: set it to noeviction")
    if not info.get("aof_enabled"):
        problems.append("appendonly is off: jobs of the last minutes are lost when Redis is killed")
    if info.get("role") == "slave":
        return Check("redis", State.FAIL, f"{message}; it is a read-only replica", "give HUB_REDIS_URL its master")
    state = State.WARN if problems else State.OK
    return Check("redis", state, message, problems=tuple(problems))


async def check_stores(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> AsyncIterator[Check]:
    """Whether artifacts can be stored: in the default store, and in every other one."""
    try:
        stores = Stores.from_settings(settings, openers=store_openers(plugins), environ=environ)
    except ConfigError as error:
        yield failed("artifacts", error)
        return
    try:
        for name in stores.names:
            yield await _check_store(stores, name)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await stores.aclose()


async def _check_store(stores: Stores, name: str) -> Check:
    title = "artifacts" if name == DEFAULT else f"artifacts {name}"
    try:
        store = stores.get(name)
        with anyio.fail_after(_STORE_S):
            await store.check()
    except EmpError as error:
        return failed(title, error)
    except TimeoutError:
        message = f"the store did not answer within {_STORE_S:g} s"
        return Check(
            title, State.FAIL, message, "see to the network, and to the store's URL and endpoint", unreached=True
        )
    url = stores.url(name)
    return Check(title, State.OK, f"{path_of(shown_url(url) if '://' in url else url)} can be written")


def check_disk(settings: Settings) -> Check:
    """How much room there is where the data are."""
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:,.1f} GB free for {settings.data_dir}"
    if free < _DISK_FULL:
        return Check("disk", State.FAIL, message, "free some space, or set EMP_DATA_DIR to a disk with room")
    if free < _DISK_LOW:
        return Check("disk", State.WARN, message, "outputs and models need room: free some, or set EMP_DATA_DIR")
    return Check("disk", State.OK, message)


def check_gpus(settings: Settings) -> Check:
    """What NVIDIA's driver tells, against NUM_GPUS and GPU_ID."""
    inventory = gpu_inventory()
    found = inventory.gpus
    shown = ", ".join(f"{gpu.index}: {gpu.model or 'unknown'} ({(gpu.memory_mb or 0) / 1024:.0f} GB)" for gpu in found)
    message = shown or "no GPU is seen through NVIDIA's driver"
    if inventory.trouble:
        return Check("gpus", State.WARN, message, problems=inventory.trouble)
    if settings.gpu_id is not None and settings.gpu_id not in {gpu.index for gpu in found}:
        hint = f"GPU_ID={settings.gpu_id} is none of them; correct it, or see what nvidia-smi says"
        return Check("gpus", State.WARN, message, hint)
    if settings.num_gpus is not None and settings.num_gpus != len(found):
        hint = f"NUM_GPUS={settings.num_gpus} says otherwise; unset it, or see what nvidia-smi says"
        return Check("gpus", State.WARN, message, hint)
    if not found and Path("/proc/driver/nvidia").exists():
        return Check("gpus", State.WARN, f"{message}, though it is loaded", "see what nvidia-smi says")
    return Check("gpus", State.OK, message if found else f"{message}; services that need none run all the same")
