"""supervisor: the process manager that pip installs.

http://supervisord.org/configuration.html and http://supervisord.org/api.html. It is a program of its own, in a session of
its own, and is spoken to by XML-RPC over a socket that only this user can reach.
"""

import hashlib
import json
import os
import sys
import xmlrpc.client
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any, ClassVar

import anyio
import httpx
from attrs import evolve

from emp_machine.errors import MachineError
from emp_machine.plan.model import Process
from emp_machine.processes import begin
from emp_machine.processes.folder import make_folders, private, run_folder, sockets_folder, surroundings, write_private
from emp_machine.processes.interface import LogLine, ProcessManager, ProcessState, ProcessStatus
from emp_machine.processes.remains import end_remains, manager_mark, marked
from emp_machine.processes.roster import Known, Roster, read_roster, write_roster
from emp_machine.processes.tailing import last_lines, tail
from emp_machine.render.supervisor import supervisor_head, supervisor_program

__all__ = ["SupervisorManager"]

_STATES = {
    "STOPPED": ProcessState.STOPPED,
    "STARTING": ProcessState.STARTING,
    "RUNNING": ProcessState.RUNNING,
    "BACKOFF": ProcessState.STARTING,
    "STOPPING": ProcessState.STOPPING,
    "EXITED": ProcessState.STARTING,  # autorestart is on: it is started again in a moment
    "FATAL": ProcessState.FAILED,
    "UNKNOWN": ProcessState.FAILED,
}
_ALREADY_STARTED, _NOT_RUNNING, _BAD_NAME, _ALREADY_ADDED = 60, 70, 10, 90
_ANSWER_S = 10.0
_BEGIN_S = 20.0
_LOOK_S = 0.05
_MORE_S = 10.0
"""How much longer than its ``stop_s`` a process may take to end: it is killed then, and children after it."""


class SupervisorManager(ProcessManager):
    """Drives a supervisord that belongs to one folder.

    Args:
        environ: the user's environment; what belongs to every process of the user is passed on.
    """

    kind: ClassVar[str] = "supervisor"
    look_every_s: ClassVar[float] = 1.0

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        super().__init__(root)
        self._environ = environ

    @property
    def _folder(self) -> Path:
        return run_folder(self.root) / "supervisor"

    @property
    def _socket(self) -> Path:
        return sockets_folder(self.root) / "supervisor.sock"

    # -- the manager ---------------------------------------------------------------------------------------------

    async def pid(self) -> int | None:
        if not self._socket.exists():
            return None
        try:
            return int(await self._call("supervisor.getPID"))
        except MachineError:
            return None

    async def apply(self, processes: Sequence[Process]) -> None:
        there = await self.runs()
        if not there:
            await end_remains(self.root)
        write_roster(self.root, self.kind, processes)
        self._write(processes)
        if there:
            await self._update()
        else:
            await self._begin()

    def _write(self, processes: Sequence[Process]) -> None:
        orders = private(private(self._folder) / "begin")
        begun = []
        for process in processes:
            one = marked(process, self.root)
            order = json.dumps({"argv": one.argv, "environ": dict(one.environ)}, sort_keys=True)
            # Its name tells what is in it, so that supervisor notices a change.
            file = orders / f"{one.name}-{hashlib.sha256(order.encode()).hexdigest()[:12]}.json"
            write_private(file, order)
            make_folders(one, self.root)
            argv = (sys.executable, "-I", "-S", begin.__file__, str(file))
            begun.append(evolve(one, argv=argv, environ={}))
        # Nothing starts by itself, and what ends at once is left to who watches.
        programs = [supervisor_program(one, autostart=False, startretries=1) for one in begun]
        write_private(self._config, "\n".join([supervisor_head(self._folder, self._socket), *programs]))
        for old in set(orders.iterdir()) - {Path(one.argv[-1]) for one in begun}:
            old.unlink()

    @property
    def _log(self) -> Path:
        return self._folder / "supervisord.log"

    @property
    def _config(self) -> Path:
        return self._folder / "supervisord.conf"

    async def _begin(self) -> None:
        done = None
        with anyio.move_on_after(_BEGIN_S):
            # It leaves this program and its terminal when it listens: a Ctrl-C is for this program alone, which ends the
            # processes in their order.
            done = await anyio.run_process(
                [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._config)],
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                check=False,
                cwd=self._folder,
                env={**surroundings(self._environ), **manager_mark(self.root)},
            )
        if done is not None and done.returncode == 0 and await self.runs():
            return
        said = [] if done is None else done.stdout.decode(errors="replace").splitlines()
        said = said[-5:] or last_lines(self._log, 5)
        raise MachineError(
            f"supervisor does not start{': ' if said else ''}{'; '.join(said)}", hint=f"{self._log} says more"
        )

    async def _update(self) -> None:
        [[added, changed, removed]] = await self._call("supervisor.reloadConfig")
        gone = [*changed, *removed]
        if gone:
            await self._end(gone)
        for name in gone:
            await self._call("supervisor.removeProcessGroup", name)
        for name in (*added, *changed):
            await self._call("supervisor.addProcessGroup", name, but=_ALREADY_ADDED)

    async def shutdown(self) -> None:
        pid = await self.pid()
        if pid is not None:
            await self.stop()
            await self._call("supervisor.shutdown")
            with anyio.move_on_after(_MORE_S) as waiting:
                while _lives(pid):  # noqa: ASYNC110 - it tells nobody when it ends
                    await anyio.sleep(_LOOK_S)
            if waiting.cancelled_caught:
                await self.kill()
        await end_remains(self.root)

    async def kill(self) -> None:
        await end_remains(self.root, patience_s=0)

    # -- the processes -------------------------------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        for one in self._roster().named(names):
            await self._call("supervisor.startProcess", one.name, False, but=_ALREADY_STARTED)

    async def stop(self, *names: str) -> None:
        await self._end([one.name for one in self._roster().named(names)])

    async def _end(self, names: Sequence[str]) -> None:
        """End processes that supervisor knows, whether or not the roster still has them."""
        infos = {info["name"]: info for info in await self._infos()}
        for name in names:
            if name in infos:
                await self._call("supervisor.stopProcess", name, False, but=_NOT_RUNNING)
        limits = {one.name: one.stop_s for one in self._roster().processes}
        longest = max((limits.get(name, 60.0) for name in names), default=0.0)
        with anyio.move_on_after(longest + _MORE_S) as waiting:
            while any(info["pid"] for info in await self._infos() if info["name"] in names):  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)
        await end_remains(self.root, names=frozenset(names), patience_s=1.0)
        if waiting.cancelled_caught:
            raise MachineError(f"supervisor did not end {', '.join(names)} within {longest + _MORE_S:g} s")

    async def status(self, *names: str) -> tuple[ProcessStatus, ...]:
        roster = read_roster(self.root)
        if roster is None or not await self.runs():
            return ()
        infos = {info["name"]: info for info in await self._infos()}
        return tuple(_status(one, infos.get(one.name)) for one in roster.named(names))

    def logs(self, *names: str, lines: int = 20, follow: bool = False) -> AsyncGenerator[LogLine, None]:
        return tail(self._roster().named(names), lines=lines, follow=follow)

    def _roster(self) -> Roster:
        return read_roster(self.root) or Roster(self.kind)

    # -- the wire ------------------------------------------------------------------------------------------------

    async def _infos(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._call("supervisor.getAllProcessInfo")
        return found

    async def _call(self, method: str, *arguments: Any, but: int | None = None) -> Any:
        """Call supervisor.

        Args:
            but: a fault that is no fault here; the answer is None then.
        """
        # A Unix socket needs no certificates, and loading them takes longer than the call.
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket), verify=False)
        try:
            async with httpx.AsyncClient(transport=transport, timeout=_ANSWER_S, trust_env=False) as client:
                answer = await client.post(
                    "http://supervisor/RPC2",
                    content=xmlrpc.client.dumps(arguments, method).encode(),
                    headers={"content-type": "text/xml"},
                )
            answer.raise_for_status()
            (value,), _ = xmlrpc.client.loads(answer.content)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == but:
                return None
            raise MachineError(
                f"supervisor refuses {method}({', '.join(map(repr, arguments))}): {fault.faultString}"
            ) from fault
        except httpx.HTTPError as error:
            raise MachineError(
                f"supervisor does not answer at {self._socket}: {str(error) or type(error).__name__}",
                hint="`emp machine up` starts it",
            ) from error
        return value


def _status(known: Known, info: Mapping[str, Any] | None) -> ProcessStatus:
    if info is None:
        return ProcessStatus(known.name, ProcessState.STOPPED)
    state = _STATES[info["statename"]]
    pid = int(info["pid"]) or None
    up_s = float(info["now"] - info["start"]) if pid else None
    reason = ""
    if info["statename"] in ("BACKOFF", "FATAL", "EXITED", "UNKNOWN"):
        said = last_lines(known.log, 1)
        ended = str(info["spawnerr"]) or f"it ended with {info['exitstatus']}"
        reason = ended + (f"; its last words: {said[0][:200]}" if said else "")
    return ProcessStatus(known.name, state, pid, up_s, None, reason)


def _lives(pid: int) -> bool:
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)  # a child of this program stays in the list until it is asked for
    except ChildProcessError:
        done = 0
    if done:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
