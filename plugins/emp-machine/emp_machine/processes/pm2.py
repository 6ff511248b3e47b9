"""PM2: the process manager of the Node world, where npm has installed it.

https://pm2.keymetrics.io/docs/usage/application-declaration/. It is driven by its command line alone, and lives in a
``PM2_HOME`` of this machine's own, so that it never meets another PM2 of the same user.
"""

import json
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

import anyio
import anyio.to_thread
from attrs import evolve

from emp_core.log.redaction import hide_secrets
from emp_machine.errors import MachineError
from emp_machine.plan.model import Process
from emp_machine.processes.folder import make_folders, private, sockets_folder, surroundings, write_private
from emp_machine.processes.interface import LogLine, ProcessManager, ProcessState, ProcessStatus
from emp_machine.processes.remains import end_remains, manager_mark, marked
from emp_machine.processes.roster import Known, Roster, fingerprint, read_roster, write_roster
from emp_machine.processes.tailing import last_lines, tail
from emp_machine.render.pm2 import pm2_app

__all__ = ["Pm2Manager", "parse_list", "pm2_runs"]

_STATES = {
    "online": ProcessState.RUNNING,
    "launching": ProcessState.STARTING,
    "waiting restart": ProcessState.STARTING,
    "stopping": ProcessState.STOPPING,
    "stopped": ProcessState.STOPPED,
    "errored": ProcessState.FAILED,
    "one-launch-status": ProcessState.RUNNING,
}
_FINGERPRINT = "EMP_MACHINE_FINGERPRINT"
_ANSWER_S = 60.0
_CONNECT_S = 2.0
_END_S = 15.0
_STOP_MOST_S = 3600.0
"""How long one that is not in the plan any more may take to end: what it was promised is not known any more."""
_LOOK_S = 0.05


class Pm2Manager(ProcessManager):
    """Drives a PM2 that belongs to one folder.

    Args:
        environ: the user's environment; what belongs to every process of the user is passed on.
        program: PM2's command.
    """

    kind: ClassVar[str] = "pm2"
    look_every_s: ClassVar[float] = 5.0  # each look starts a Node

    def __init__(self, root: Path, environ: Mapping[str, str], program: Path) -> None:
        super().__init__(root)
        self._environ = environ
        self._program = program

    @property
    def _home(self) -> Path:
        return private(sockets_folder(self.root) / "pm2")

    @property
    def _config(self) -> Path:
        return self._home / "ecosystem.config.js"

    # -- the manager ---------------------------------------------------------------------------------------------

    async def pid(self) -> int | None:
        # Its command line starts it with every word: so its socket is asked whether there is one.
        if not await anyio.to_thread.run_sync(_listens, self._home / "rpc.sock"):
            return None
        try:
            return int((self._home / "pm2.pid").read_text())
        except (OSError, ValueError) as error:
            raise MachineError(f"PM2 runs, and {self._home / 'pm2.pid'} does not tell its process: {error}") from error

    async def apply(self, processes: Sequence[Process]) -> None:
        there = await self.runs()
        if not there:
            await end_remains(self.root)
        write_roster(self.root, self.kind, processes)
        self._write(processes)
        if there:
            wanted = {one.name: fingerprint(one) for one in processes}
            found = await self._list()
            gone = [name for name, one in found.items() if wanted.get(name) != one["pm2_env"].get(_FINGERPRINT)]
            await self._delete(gone)
        else:
            await self._run("ping")

    def _write(self, processes: Sequence[Process]) -> None:
        apps = []
        for process in processes:
            make_folders(process, self.root)
            one = marked(process, self.root)
            apps.append(pm2_app(evolve(one, environ={**one.environ, _FINGERPRINT: fingerprint(process)})))
        write_private(self._config, f"module.exports = {json.dumps({'apps': apps}, indent=2)};\n")

    async def _delete(self, names: Sequence[str]) -> None:
        await self._end(names, "delete", _ANSWER_S + _STOP_MOST_S)
        await end_remains(self.root, names=frozenset(names), patience_s=1.0)

    async def shutdown(self) -> None:
        pid = await self.pid()
        if pid is not None:
            await self.stop()
            await self._run("kill")
            with anyio.move_on_after(_END_S) as waiting:
                while await self.runs():  # noqa: ASYNC110 - it tells nobody when it ends
                    await anyio.sleep(_LOOK_S)
            if waiting.cancelled_caught:
                await self.kill()
        await end_remains(self.root)

    async def kill(self) -> None:
        await end_remains(self.root, patience_s=0)

    # -- the processes -------------------------------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        wanted = [one.name for one in self._roster().named(names)]
        await self._require()
        found = await self._list()
        idle = [name for name in wanted if name not in found or not _state(found[name]).lives]
        if idle:
            await self._run("start", str(self._config), "--only", ",".join(idle))

    async def stop(self, *names: str) -> None:
        wanted = self._roster().named(names)
        await self._require()
        found = await self._list()
        there = [one.name for one in wanted if one.name in found]
        limit_s = _ANSWER_S + max((one.stop_s for one in wanted), default=0.0)
        await self._end(there, "stop", limit_s)
        await end_remains(self.root, names=frozenset(one.name for one in wanted), patience_s=1.0)

    async def _end(self, names: Sequence[str], verb: str, limit_s: float) -> None:
        """Stop or delete processes. Only from a file does PM2 take several side by side."""
        if not names:
            return
        apps = [{"name": name, "script": "none"} for name in names]
        with NamedTemporaryFile("w", suffix=".json", dir=self._home) as file:
            json.dump({"apps": apps}, file)
            file.flush()
            await self._run(verb, file.name, limit_s=limit_s)

    async def status(self, *names: str) -> tuple[ProcessStatus, ...]:
        roster = read_roster(self.root)
        if roster is None or not await self.runs():
            return ()
        known = roster.named(names)
        found = await self._list()
        return tuple(_status(one, found.get(one.name)) for one in known)

    def logs(self, *names: str, lines: int = 20, follow: bool = False) -> AsyncGenerator[LogLine, None]:
        return tail(self._roster().named(names), lines=lines, follow=follow)

    def _roster(self) -> Roster:
        return read_roster(self.root) or Roster(self.kind)

    # -- its command line ----------------------------------------------------------------------------------------

    async def _require(self) -> None:
        if not await self.runs():
            raise MachineError(f"PM2 does not run in {self._home}", hint="`emp machine up` starts it")

    async def _list(self) -> dict[str, Any]:
        return {one["name"]: one for one in parse_list(await self._run("jlist"))}

    async def _run(self, *arguments: str, limit_s: float = _ANSWER_S) -> str:
        environ = {
            **surroundings(self._environ),
            **manager_mark(self.root),
            "PM2_HOME": str(self._home),
            "PM2_KILL_SIGNAL": "SIGTERM",
            "PM2_CONCURRENT_ACTIONS": "64",  # all workers drain side by side
            "PM2_DISABLE_VERSION_CHECK": "true",  # it would ask a server of its maker's
            "PM2_PROGRAMMATIC": "true",
            "NO_COLOR": "1",
        }
        with anyio.move_on_after(limit_s):
            try:
                done = await anyio.run_process(
                    [str(self._program), *arguments],
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=STDOUT,
                    check=False,
                    cwd=self._home,
                    env=environ,
                    start_new_session=True,
                )
            except OSError as error:
                raise MachineError(f"{self._program} cannot be run: {error.strerror or error}") from error
            said = done.stdout.decode(errors="replace")
            if done.returncode == 0:
                return said
            last = [hide_secrets(line.strip()) for line in said.splitlines() if line.strip()][-3:]
            raise MachineError(
                f"`pm2 {' '.join(arguments[:1])}` ended with {done.returncode}: {'; '.join(last)}",
                hint=f"{self._home / 'pm2.log'} says more",
            )
        raise MachineError(
            f"`pm2 {arguments[0]}` did not end within {limit_s:g} s", hint=f"{self._home / 'pm2.log'} says more"
        )


def pm2_runs(root: Path) -> bool:
    """Whether a PM2 keeps this folder's processes now. Needs no PM2 to find out."""
    return _listens(sockets_folder(root) / "pm2" / "rpc.sock")


def parse_list(text: str) -> list[dict[str, Any]]:
    """What ``pm2 jlist`` has printed: a JSON array on a line of its own, after whatever else PM2 had to say.

    Raises:
        MachineError: there is no list in it.
    """
    for line in reversed(text.splitlines()):
        if line.startswith("["):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, list) and all(isinstance(one, dict) and "pm2_env" in one for one in found):
                    return found
    raise MachineError("`pm2 jlist` printed no list", hint="`pm2 --version` should be 5 or newer")


def _state(one: Mapping[str, Any]) -> ProcessState:
    return _STATES.get(one["pm2_env"].get("status"), ProcessState.FAILED)


def _status(known: Known, one: Mapping[str, Any] | None) -> ProcessStatus:
    if one is None:
        return ProcessStatus(known.name, ProcessState.STOPPED)
    environ = one["pm2_env"]
    state = _state(one)
    pid = int(one.get("pid") or 0) or None
    if state is ProcessState.STARTING:
        pid = None
    up_s = (time.time() * 1000 - environ["pm_uptime"]) / 1000 if pid and environ.get("pm_uptime") else None
    reason = ""
    if state in (ProcessState.STARTING, ProcessState.FAILED):
        said = last_lines(known.log, 1)
        reason = f"it ended with {environ.get('exit_code')}" + (f"; its last words: {said[0][:200]}" if said else "")
    return ProcessStatus(known.name, state, pid, up_s, environ.get("restart_time"), reason)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
