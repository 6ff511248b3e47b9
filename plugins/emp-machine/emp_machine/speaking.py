"""What a machine says of itself: to Redis, and in a file for other commands on the machine."""

import json
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from attrs import asdict, evolve
from redis.exceptions import RedisError

from emp_core.log.logger import get_logger
from emp_core.queue.keys import Keys
from emp_core.queue.machines import SILENT_S, MachinePhase, MachineStatus, write_machine
from emp_core.worker.gpus import gpus
from emp_machine.errors import MachineError
from emp_machine.plan.model import MachinePlan, Process
from emp_machine.processes.care import Standing, Verdict
from emp_machine.processes.folder import private, run_folder, write_private

__all__ = ["Speaker", "read_verdicts"]

log = get_logger("emp.machine")

_EVERY_S = SILENT_S / 3
_WRITE_S = 5.0
_CALM_S = 0.5
"""How often at most: an installation tells of every percent."""
_FILE = "verdicts.json"


class Speaker:
    """Says what a machine is about whenever it changes, and every ten seconds.

    Args:
        client: redis-py's. While Redis is away nothing is said there.
    """

    def __init__(self, plan: MachinePlan, client: Any, keys: Keys) -> None:
        self._plan = plan
        self._client = client
        self._keys = keys
        self._status = MachineStatus(plan.machine_id, MachinePhase.STARTING, versions=_versions())
        self._verdicts: Mapping[str, Verdict] = {}
        self._changed = anyio.Event()
        self._away = False
        self._one_at_a_time = anyio.Lock()

    @property
    def phase(self) -> MachinePhase:
        """What the machine is about."""
        return self._status.phase

    def say(self, phase: MachinePhase, detail: str = "") -> None:
        """The machine is about something else now."""
        self._status = evolve(self._status, phase=phase, detail=detail)
        self._changed.set()

    def judge(self, verdicts: Mapping[str, Verdict]) -> None:
        """How the processes stand."""
        self._verdicts = verdicts
        self._changed.set()

    async def run(self) -> None:
        """Speak until cancelled."""
        while True:
            self._changed = anyio.Event()
            await self.speak()
            await anyio.sleep(_CALM_S)
            with anyio.move_on_after(_EVERY_S - _CALM_S):
                await self._changed.wait()

    async def speak(self) -> None:
        """Say it once, now. What is said last is what holds."""
        async with self._one_at_a_time:
            await self._speak()

    async def _speak(self) -> None:
        self._note()
        # A driver in trouble may never answer, and must not keep the machine from ending.
        found = await anyio.to_thread.run_sync(lambda: gpus(tell=False), abandon_on_cancel=True)
        status = evolve(
            self._status,
            gpus=_gpus(self._plan, {gpu.index: asdict(gpu) for gpu in found}),
            disk=_disk(self._plan.root),
            services=self._standings(self._plan.instances),
            workers=self._standings(self._plan.workers),
        )
        try:
            with anyio.fail_after(_WRITE_S):
                await write_machine(self._client, self._keys, status)
            self._away = False
        except (RedisError, OSError, TimeoutError) as error:
            if not self._away and status.phase in (MachinePhase.READY, MachinePhase.DRAINING):
                self._away = True
                log.warning("the machine's status cannot be written to redis", error=str(error))

    def forget(self) -> None:
        """Nothing is known of the processes any more."""
        _file(self._plan.root).unlink(missing_ok=True)

    def _note(self) -> None:
        shown = {name: verdict.as_dict() for name, verdict in self._verdicts.items()}
        text = json.dumps({"phase": self._status.phase.value, "detail": self._status.detail, "processes": shown})
        try:
            write_private(private(run_folder(self._plan.root)) / _FILE, text)
        except (OSError, MachineError) as error:
            log.warning("how the processes stand cannot be written down", error=str(error))

    def _standings(self, processes: tuple[Process, ...]) -> dict[str, dict[str, Any]]:
        nothing = Verdict()
        return {
            one.name: {
                **self._verdicts.get(one.name, nothing).as_dict(),
                "gpu": one.gpu,
                "endpoint": one.endpoint,
            }
            for one in processes
        }


def read_verdicts(root: Path) -> dict[str, Verdict]:
    """What `emp machine up` thinks of the processes, by name; empty when it does not tell."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        said = json.loads(_file(root).read_text(encoding="utf-8"))["processes"]
        return {
            name: Verdict(Standing(one["standing"]), str(one["reason"]), int(one["restarts"]))
            for name, one in said.items()
        }
    return {}


def _file(root: Path) -> Path:
    return run_folder(root) / _FILE


def _gpus(plan: MachinePlan, found: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The plan's GPUs, with what the driver tells of them now."""
    told = ("memory_used_mb", "utilization")
    return tuple(
        {
            "index": gpu.index,
            "model": gpu.model,
            "memory_mb": gpu.memory_mb,
            **{name: found.get(int(gpu.visible), {}).get(name) for name in told if not gpu.mock},
        }
        for gpu in plan.gpus
    )


def _disk(root: Path) -> dict[str, int]:
    there = next(one for one in (root, *root.parents) if one.exists())
    usage = shutil.disk_usage(there)
    return {"free_mb": usage.free // 2**20, "total_mb": usage.total // 2**20}


def _versions() -> dict[str, str]:
    ours = sorted({one.name for one in distributions() if one.name.startswith("emp-")})
    return {"python": platform.python_version(), **{name: version(name) for name in ours}}
