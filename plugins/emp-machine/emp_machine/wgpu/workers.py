"""The workers of this machine, by GPU."""

from pathlib import Path

import anyio
from attrs import frozen

from emp_core.errors import ConfigError
from emp_machine.commands import driving
from emp_machine.commands.running import Here, find_here
from emp_machine.errors import MachineError
from emp_machine.plan.here import plan_here
from emp_machine.plan.model import MachinePlan
from emp_machine.processes.interface import ProcessState, ProcessStatus
from emp_machine.processes.pidfiles import note_pids
from emp_machine.processes.roster import Known, known

__all__ = ["ALL", "Target", "Workers", "workers_of_plan"]

ALL = "all"

Target = int | str
"""The number of a GPU, or `ALL`: also the workers that are bound to no GPU."""

_LOOK_S = 0.1
_START_S = 60.0


@frozen
class Workers:
    """Some workers of this machine, and what keeps them.

    Attributes:
        those: what their manager was told of them; what it would be told, where nothing was started yet.
    """

    here: Here
    those: tuple[Known, ...]
    env_file: Path | None

    @classmethod
    async def find(cls, target: Target, env_file: Path | None, *, to_start: bool = False) -> "Workers":
        """The workers of a GPU, or all.

        Args:
            to_start: where nothing runs, what the machine would run now counts, and not what it ran last.

        Raises:
            ConfigError: there is none on this GPU; or the machine would run nothing, and why.
        """
        here = find_here(env_file)
        known_here = tuple(one for one in here.roster.processes if one.worker)
        if not known_here or (to_start and not await here.manager.runs()):
            known_here = tuple(known(one) for one in plan_here(env_file, taken={}).workers)
        return cls(here, _on(target, known_here), env_file)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of their processes."""
        return tuple(one.name for one in self.those)

    async def look(self) -> tuple[ProcessStatus, ...]:
        """How each is, as their manager has it; their files are written accordingly."""
        told = {one.name: one for one in await self.here.manager.status()}
        found = tuple(told.get(one.name) or ProcessStatus(one.name, ProcessState.STOPPED) for one in self.those)
        note_pids(self.those, {one.name: one.pid for one in found})
        return found

    async def start(self) -> tuple[ProcessStatus, ...]:
        """Start those that do not run, and what they need.

        Raises:
            ConfigError, MachineError: as `driving.start`; or one does not stay.
        """
        await driving.start(self.here, self.names, self.env_file)
        return await self._until_they_stay()

    async def restart(self) -> tuple[ProcessStatus, ...]:
        """End those that run, side by side, when their jobs have ended; then as `start`."""
        await driving.stop(self.here, self.names)
        return await self.start()

    async def stop(self) -> tuple[ProcessStatus, ...]:
        """End them when their jobs have ended. They stay so until somebody starts them."""
        await driving.stop(self.here, self.names)
        return await self.look()

    async def _until_they_stay(self) -> tuple[ProcessStatus, ...]:
        found: tuple[ProcessStatus, ...] = ()
        with anyio.move_on_after(_START_S):
            while True:
                found = await self.look()
                if all(one.state in (ProcessState.RUNNING, ProcessState.FAILED) for one in found):
                    break
                await anyio.sleep(_LOOK_S)  # the manager tells nobody
        failed = [one for one in found if one.state is not ProcessState.RUNNING]
        if failed:
            why = "; ".join(f"{one.name}: {one.reason or one.state.value}" for one in failed)
            raise MachineError(f"not every worker runs: {why}", hint="`wgpu logs` shows what they said")
        return found


def workers_of_plan(target: Target, env_file: Path | None) -> tuple[MachinePlan, tuple[Known, ...]]:
    """The plan of this machine, and of its workers those of a GPU, or all.

    Raises:
        ConfigError: the machine cannot run what is asked of it; there is no worker on this GPU.
    """
    plan = plan_here(env_file, taken={})
    return plan, _on(target, tuple(known(one) for one in plan.workers))


def _on(target: Target, workers: tuple[Known, ...]) -> tuple[Known, ...]:
    found = tuple(one for one in workers if target in (ALL, one.gpu))
    if not found:
        gpus = ", ".join(str(gpu) for gpu in sorted({one.gpu for one in workers if one.gpu is not None}))
        raise ConfigError(
            f"there is no worker on GPU {target} of this machine",
            hint=f"there are workers on: {gpus}; or say `all`" if gpus else "no worker is bound to a GPU: say `all`",
        )
    return found
