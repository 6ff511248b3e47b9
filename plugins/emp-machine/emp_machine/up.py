"""`emp machine up`: installs, starts and watches what a plan says, until it is told to end; then it leaves nothing behind."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from emp_core.config import Settings
from emp_core.errors import InstallError
from emp_core.log.logger import get_logger
from emp_core.plugins.loaded import Plugins
from emp_core.queue.connection import connect
from emp_core.queue.keys import Keys
from emp_core.queue.machines import MachinePhase
from emp_core.services.installer import InstallEvent, InstallEventKind
from emp_core.worker.notices import NoticeWatch, notices_of
from emp_machine.errors import MachineError
from emp_machine.holding import hold
from emp_machine.installing.run import Tell, install_services
from emp_machine.plan.model import MachinePlan
from emp_machine.processes.care import Standing, Verdict
from emp_machine.processes.choosing import end_other_managers
from emp_machine.processes.interface import ProcessManager, ProcessStatus
from emp_machine.processes.pidfiles import note_pids
from emp_machine.processes.probing import all_probes
from emp_machine.processes.watching import Watcher
from emp_machine.speaking import Speaker

__all__ = ["Machine"]

log = get_logger("emp.machine")


class Machine:
    """Holds one machine.

    Args:
        settings: of the core, as the machine's workers have them.
        manager: what keeps the processes.
        tell: told of what the installation does.
        note: told what becomes of the processes, line by line.
    """

    def __init__(
        self,
        plan: MachinePlan,
        plugins: Plugins,
        settings: Settings,
        manager: ProcessManager,
        *,
        environ: Mapping[str, str],
        tell: Tell = lambda _service, _event: None,
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.plan = plan
        self._plugins = plugins
        self._settings = settings
        self._manager = manager
        self._environ = environ
        self._tell = tell
        self._note = note
        self._drained, self._stopped = anyio.Event(), anyio.Event()
        self._why = ""
        self._watcher: Watcher | None = None
        self._told: dict[str, Verdict] = {}
        self._install_error: InstallError | None = None

    def drain(self, reason: str = "") -> None:
        """End in order: workers let their jobs end, then services end."""
        self._why = reason
        self._drained.set()

    def _leave(self, why: str) -> None:
        """The machine is about to go: its workers are told as well, and would be started again otherwise."""
        self._note(f"{why}: draining")
        self.drain(why)

    def stop(self) -> None:
        """End everything at once."""
        self._drained.set()
        self._stopped.set()

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """How the processes stand."""
        return {} if self._watcher is None else self._watcher.verdicts

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Install, start and watch until drained. Whatever ends it, nothing of it runs afterwards.

        Args:
            on_ready: called once, when all that can run runs.

        Raises:
            MachineBusy: another process holds this machine.
            MachineError: no worker can run, or the process manager does not do as it was told.
        """
        with hold(self.plan.root):
            async with self._redis() as client, anyio.create_task_group() as speaking:
                self._client = client
                self._speaker = Speaker(self.plan, client, Keys(self._settings.namespace))
                speaking.start_soon(self._speaker.run, name="emp machine status")
                notices = notices_of(self._settings, self._plugins, self._environ)
                speaking.start_soon(NoticeWatch(notices, self._leave).run, name="emp machine notices")
                try:
                    await _unless(self._drained, self._work, on_ready)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._end()
                    speaking.cancel_scope.cancel()

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Any]:
        client = connect(self.plan.environ["HUB_REDIS_URL"], self._settings)
        try:
            yield client
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await client.aclose()

    # -- from nothing to workers ---------------------------------------------------------------------------------

    async def _work(self, on_ready: Callable[[], None]) -> None:
        await self._install()
        self._speaker.say(MachinePhase.STARTING)
        await end_other_managers(self._manager, self._environ)
        await self._manager.apply(self.plan.processes)
        async with httpx.AsyncClient(trust_env=False) as client, anyio.create_task_group() as group:
            probes = all_probes(self.plan.processes, client, self._client, self._settings)
            watcher = self._watcher = Watcher(
                self._manager, self.plan.processes, probes, on_change=self._judge, on_look=self._note_pids
            )
            group.start_soon(watcher.run, name="emp machine watch")
            await watcher.until(lambda: watcher.settled)
            self._refuse_if_hopeless(watcher)
            self._speaker.say(MachinePhase.READY, self._trouble())
            await self._speaker.speak()  # whoever is told looks there next
            on_ready()
            await watcher.until(lambda: watcher.hopeless)
            self._refuse_if_hopeless(watcher)

    async def _install(self) -> None:
        self._speaker.say(MachinePhase.INSTALLING)
        try:
            await install_services(self.plan, self._plugins, self._tell_and_speak)
        except InstallError as error:
            # What was there before may still run, and so may the other services: whoever pays for the machine wants that.
            self._install_error = error
            self._note(f"installation: {error.message}; going on with what there is")
            log.warning("an installation failed", error=str(error))

    def _tell_and_speak(self, service: str, event: InstallEvent) -> None:
        self._tell(service, event)
        if event.kind in (InstallEventKind.BEGUN, InstallEventKind.PROGRESS):
            far = "" if event.fraction is None else f", {event.fraction:.0%}"
            self._speaker.say(MachinePhase.INSTALLING, f"{service}: {event.step}{far}")

    def _note_pids(self, statuses: Sequence[ProcessStatus]) -> None:
        note_pids(self.plan.workers, {one.name: one.pid for one in statuses})

    def _judge(self) -> None:
        verdicts = self.verdicts
        for name, verdict in verdicts.items():
            if verdict != self._told.get(name):
                self._note(f"{name}: {_in_words(verdict)}")
        self._told = verdicts
        self._speaker.judge(verdicts)

    def _refuse_if_hopeless(self, watcher: Watcher) -> None:
        if not watcher.hopeless:
            return
        why = "; ".join(f"{name}: {_in_words(one)}" for name, one in watcher.verdicts.items() if one.reason)
        trouble = self._trouble()
        raise MachineError(
            f"no worker can run on this machine: {why}{'; ' if trouble else ''}{trouble}",
            hint="`emp machine logs` shows what the processes said, `emp machine doctor` what is wrong with the machine",
        )

    def _trouble(self) -> str:
        return "" if self._install_error is None else f"installation: {self._install_error.message}"

    # -- to nothing ----------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Workers first: their jobs need the services. Then services, the manager, and whatever is left of any of them."""
        self._speaker.say(MachinePhase.DRAINING, self._why)
        try:
            if await self._manager.runs():
                await _unless(self._stopped, self._manager.stop, *(one.name for one in self.plan.workers))
                self._speaker.say(MachinePhase.SHUTDOWN, self._why)
                await _unless(self._stopped, self._speaker.speak)  # while a Redis of the machine's own is there
                await _unless(self._stopped, self._manager.shutdown)
        except MachineError as error:
            log.warning("the processes cannot be ended in order: they are killed", error=str(error))
        finally:
            await self._manager.kill()
            self._note_pids(())
            self._speaker.forget()


async def _unless(event: anyio.Event, what: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Do something, or leave it where it is when the event comes."""
    failed: Exception | None = None
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            await event.wait()
            group.cancel_scope.cancel()

        group.start_soon(wait)
        try:
            await what(*arguments)
        except Exception as error:  # raised below, outside of the group, as what it is
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


def _in_words(verdict: Verdict) -> str:
    reason = f" ({verdict.reason})" if verdict.reason and verdict.standing is not Standing.WELL else ""
    return f"{verdict.standing.value}{reason}"
