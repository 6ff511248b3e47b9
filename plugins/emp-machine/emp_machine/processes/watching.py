"""Looking after the processes of a plan: services before their workers, unwell ones restarted, hopeless ones given up."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from emp_core.log.logger import get_logger
from emp_machine.errors import MachineError
from emp_machine.plan.model import Process, ProcessKind
from emp_machine.processes.by_hand import ended_by_hand
from emp_machine.processes.care import Care, Deed, Patience, Standing, Verdict
from emp_machine.processes.interface import ProcessManager, ProcessStatus
from emp_machine.processes.probing import Probe

__all__ = ["Watcher"]

log = get_logger("emp.machine")

_LOOKED_AT = (Standing.STARTING, Standing.WELL, Standing.UNWELL)
_EAGER_S = 0.5
"""How often to look at one that is not well yet: it may be any moment now."""


class Watcher:
    """Looks after processes that a manager was told of with `ProcessManager.apply`.

    Args:
        processes: in the order of their start: each stands after all that it needs.
        probes: how to find out whether a process works, by name; without one, that it lives is enough.
        patience: how long one that fails is tried again.
        on_change: told whenever a verdict changed; must return at once.
        on_look: told what the manager says of the processes, whenever it was asked; must return at once.
        now: the time, in seconds.
    """

    def __init__(
        self,
        manager: ProcessManager,
        processes: Sequence[Process],
        probes: Mapping[str, Probe],
        *,
        patience: Patience | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_look: Callable[[Sequence[ProcessStatus]], None] = lambda _: None,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._manager = manager
        self._processes = tuple(processes)
        self._now = now
        self._on_change = on_change
        self._on_look = on_look
        self._probes = probes
        self._patience = patience or Patience()
        self._cares = {one.name: self._care(one) for one in self._processes}
        self._busy: set[str] = set()
        self._told: dict[str, Verdict] = {}
        self._look_now, self._changed = anyio.Event(), anyio.Event()

    def _care(self, process: Process, before: Verdict | None = None) -> Care:
        probe = self._probes.get(process.name)
        start_s = None if probe is None else probe.start_s
        return Care(self._patience, start_s, Verdict(restarts=before.restarts if before else 0))

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What is thought of each process, by name, in the order of the plan."""
        return {name: care.verdict for name, care in self._cares.items()}

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way: each process is well, stopped, given up, or waits for one that is."""
        return all(
            verdict.standing not in (Standing.STARTING, Standing.UNWELL)
            and (verdict.standing is not Standing.WAITING or self._in_vain(name))
            for name, verdict in self.verdicts.items()
        )

    @property
    def hopeless(self) -> bool:
        """Whether no worker will ever run, unless somebody does something: each was given up, or needs one that was."""
        workers = [one for one in self._processes if one.kind is ProcessKind.WORKER]
        return bool(workers) and all(self._lost(one) for one in workers)

    def _lost(self, process: Process) -> bool:
        standing = self._cares[process.name].verdict.standing
        if standing is Standing.WAITING:
            return any(self._lost(self._named(name)) for name in process.needs)
        return standing is Standing.GIVEN_UP

    def _in_vain(self, name: str) -> bool:
        return self._hindrance(self._named(name)) is not None

    def _named(self, name: str) -> Process:
        return next(one for one in self._processes if one.name == name)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait while it runs until something holds of its verdicts: ``await watcher.until(lambda: watcher.settled)``."""
        while not reached():
            self._changed = anyio.Event()
            await self._changed.wait()

    async def run(self) -> None:
        """Start what does not run, and look after all until cancelled."""
        async with anyio.create_task_group() as group:
            for name, probe in self._probes.items():
                group.start_soon(self._check, name, probe, group)
            while True:
                self._look_now = anyio.Event()
                await self._look(group)
                with anyio.move_on_after(self._manager.look_every_s):
                    await self._look_now.wait()

    async def _look(self, group: TaskGroup) -> None:
        try:
            statuses = await self._manager.status()
            if not statuses and not self._busy:
                await self._begin_again()
        except (MachineError, OSError) as error:
            log.warning("the process manager does not answer", error=str(error))
            return
        self._on_look(statuses)
        by_hand = ended_by_hand(self._manager.root)
        for status in statuses:
            care = self._cares.get(status.name)
            if care is None or status.name in self._busy:
                continue
            if care.verdict.standing is Standing.WAITING and not status.state.lives:
                continue
            self._do(care.seen(status, self._now(), by_hand=by_hand.get(status.name)), status.name, group)
        self._begin_what_can(group)
        self._tell()

    async def _begin_again(self) -> None:
        """The manager has died: what it left is ended, and everything starts anew, in its order, but for what somebody stopped."""
        log.warning("the process manager has ended: starting it again", manager=self._manager.kind)
        await self._manager.apply(self._processes)
        for process in self._processes:
            before = self._cares[process.name].verdict
            if before.standing is not Standing.STOPPED:
                self._cares[process.name] = self._care(process, before)

    def _begin_what_can(self, group: TaskGroup) -> None:
        ready = []
        for process in self._processes:
            care = self._cares[process.name]
            if care.verdict.standing is not Standing.WAITING or process.name in self._busy:
                continue
            missing = [name for name in process.needs if self._cares[name].verdict.standing is not Standing.WELL]
            if not missing:
                ready.append(process.name)
                continue
            care.waits_for(self._hindrance(process) or f"waits for {', '.join(missing)}")
        if ready:
            for name in ready:
                self._cares[name].begun(self._now())
                self._busy.add(name)
            group.start_soon(self._change, self._manager.start, ready)

    def _hindrance(self, process: Process) -> str | None:
        """Why it will not be started until somebody does something."""
        for name in process.needs:
            verdict = self._cares[name].verdict
            if verdict.standing in (Standing.GIVEN_UP, Standing.STOPPED):
                return f"it needs {name}, which was {verdict.standing.value}: {verdict.reason}"
            if verdict.standing is Standing.WAITING and (deeper := self._hindrance(self._named(name))):
                return deeper
        return None

    async def _check(self, name: str, probe: Probe, group: TaskGroup) -> None:
        while True:
            before = self._cares[name].verdict
            if name not in self._busy and before.standing in _LOOKED_AT:
                well = await probe.ask()
                care = self._cares[name]
                care.excused = well is None
                if well is not None and name not in self._busy:
                    self._do(care.checked(well, probe.problem, self._now()), name, group)
                if care.verdict != before:
                    self._look_now.set()
            eager = self._cares[name].verdict.standing is not Standing.WELL
            await anyio.sleep(min(probe.every_s, _EAGER_S) if eager else probe.every_s)

    def _do(self, deed: Deed, name: str, group: TaskGroup) -> None:
        match deed:
            case Deed.RESTART:
                log.warning("restarting", process=name, reason=self._cares[name].verdict.reason)
                self._cares[name].begun(self._now())
                self._busy.add(name)
                group.start_soon(self._change, self._manager.restart, [name])
            case Deed.STOP:
                log.error("given up", process=name, reason=self._cares[name].verdict.reason)
                self._busy.add(name)
                group.start_soon(self._change, self._manager.stop, [name])
            case Deed.NOTHING:
                pass

    async def _change(self, how: Callable[..., Awaitable[Any]], names: Sequence[str]) -> None:
        try:
            await how(*names)
        except (MachineError, OSError) as error:
            log.warning("the process manager does not do as it was told", processes=list(names), error=str(error))
            for name in names:
                self._cares[name].refused(str(error), self._now())
        finally:
            self._busy -= set(names)
            self._look_now.set()

    def _tell(self) -> None:
        if self._told != self.verdicts:
            self._told = self.verdicts
            self._on_change()
            self._changed.set()
