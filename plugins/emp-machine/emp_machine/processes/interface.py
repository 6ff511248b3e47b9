"""The one interface to process managers.

A process manager is a program of its own that outlives whoever drives it: it starts the processes that it was given, ends
them and their children, and starts again what has ended by itself. It knows nothing of health or of who needs whom; see
`emp_machine.processes.watching` for that.

    manager = open_manager(plan.root, wanted="auto", environ=environ)
    await manager.apply(plan.processes)     # from now on it knows these, and no others; nothing is started
    await manager.start("comfyui-gpu0")
    for one in await manager.status():
        print(one.name, one.state, one.reason)
    await manager.shutdown()
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from emp_machine.plan.model import Process

__all__ = ["LogLine", "ProcessManager", "ProcessState", "ProcessStatus"]


class ProcessState(StrEnum):
    """What a process does, as its manager has it."""

    STOPPED = "stopped"
    """It was never started, or somebody stopped it."""
    STARTING = "starting"
    """It was just started, or waits to be started again after it ended by itself."""
    RUNNING = "running"
    STOPPING = "stopping"
    """It was asked to end, and has not yet."""
    FAILED = "failed"
    """It ended by itself so often that its manager has given it up."""

    @property
    def lives(self) -> bool:
        """Whether there is a process, or will be soon."""
        return self in (ProcessState.STARTING, ProcessState.RUNNING)


@frozen
class ProcessStatus:
    """A process as its manager has it.

    Attributes:
        pid: None while there is no process.
        up_s: how long this process has been there, in seconds; None while there is none.
        restarts: how often its manager started it again by itself; None if that is not counted.
        reason: why it is in this state, in a sentence; empty when it is as it should be.
    """

    name: str
    state: ProcessState
    pid: int | None = None
    up_s: float | None = None
    restarts: int | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "up_s": None if self.up_s is None else round(self.up_s, 1),
            "restarts": self.restarts,
            "reason": self.reason,
        }


@frozen
class LogLine:
    """A line of what a process has put out."""

    name: str
    text: str


class ProcessManager(ABC):
    """Drives one process manager, which belongs to one folder.

    Any number of these may drive the same manager, from different programs, one after another or at once. Names are those
    of `Process`; no names stand for all. An unknown name is refused before anything is done.

    Args:
        root: the folder of the machine layer. The manager's own files lie below it.

    Attributes:
        kind: what people call it: ``pm2``, ``supervisor``.
        look_every_s: how often it can be asked for the status without being a burden.
    """

    kind: ClassVar[str]
    look_every_s: ClassVar[float]

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    async def pid(self) -> int | None:
        """The manager's own process id; None when it is not there. Starts nothing."""

    async def runs(self) -> bool:
        """Whether the manager itself is there. Starts nothing."""
        return await self.pid() is not None

    @abstractmethod
    async def apply(self, processes: Sequence[Process]) -> None:
        """Make the manager know these processes and no others; it is started if it is not there.

        What runs and is as before runs on. What is not in the list any more, or is another now, is ended; nothing is
        started. What an earlier manager of this folder has left behind is ended first, so that nothing runs twice.

        Raises:
            MachineError: the manager cannot be started, or does not do as it was told.
        """

    @abstractmethod
    async def start(self, *names: str) -> None:
        """Start what does not run. Returns when it was started, and does not wait for it to work.

        Raises:
            ConfigError: there is no process of such a name.
            MachineError: the manager is not there, or does not do as it was told.
        """

    @abstractmethod
    async def stop(self, *names: str) -> None:
        """End processes: SIGTERM, then after their ``stop_s`` SIGKILL to each and all its children.

        Returns when they have ended. They are ended side by side, and stay so until they are started.

        Raises:
            ConfigError, MachineError: as in `start`.
        """

    @abstractmethod
    async def status(self, *names: str) -> tuple[ProcessStatus, ...]:
        """The processes as the manager has them, in the order of the plan; none when it is not there.

        Raises:
            ConfigError: there is no process of such a name.
            MachineError: the manager does not answer.
        """

    @abstractmethod
    def logs(self, *names: str, lines: int = 20, follow: bool = False) -> AsyncGenerator[LogLine, None]:
        """The last lines of what processes have put out; with ``follow`` also all that comes, until it is closed.

        Raises:
            ConfigError: there is no process of such a name.
        """

    @abstractmethod
    async def shutdown(self) -> None:
        """End all processes as `stop` does, and then the manager. Nothing is left of either. Harmless when it is not there."""

    @abstractmethod
    async def kill(self) -> None:
        """End the manager and all that it started at once. Nobody is asked."""

    async def restart(self, *names: str) -> None:
        """End processes and start them again, side by side. What does not run is started.

        Raises:
            ConfigError, MachineError: as in `start`.
        """
        await self.stop(*names)
        await self.start(*names)

    async def reload(self, *names: str, until_well: Callable[[str], Awaitable[None]]) -> None:
        """Restart processes one after another, so that the machine goes on working.

        Args:
            until_well: returns when the process of this name works; what it raises ends the reload there.

        Raises:
            ConfigError, MachineError: as in `start`.
        """
        for one in await self.status(*names):
            await self.restart(one.name)
            await until_well(one.name)
