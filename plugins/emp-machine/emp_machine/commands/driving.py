"""Starting and ending this machine's processes by hand: what `emp machine start` and its like do, and `wgpu`.

Where `emp machine up` holds the machine, it goes on watching them: what somebody stopped stays so.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from redis.exceptions import RedisError

from emp_core.config import Settings, environment
from emp_core.errors import ConfigError
from emp_core.queue.connection import connect
from emp_core.queue.keys import Keys
from emp_machine.commands.running import Here
from emp_machine.errors import MachineError
from emp_machine.holding import hold, holder
from emp_machine.plan.here import plan_here
from emp_machine.plan.redis import REDIS
from emp_machine.processes.by_hand import note_ended_by_hand
from emp_machine.processes.choosing import end_other_managers
from emp_machine.processes.interface import ProcessState
from emp_machine.processes.probing import Probe, all_probes, health_probes
from emp_machine.processes.roster import Known, Roster, expanded, known
from emp_machine.processes.tailing import last_lines
from emp_machine.processes.watching import Watcher

__all__ = ["hub_of", "reload", "restart", "start", "stop"]

_LOOK_S = 0.2
_LIVE_S = 30.0
_TRIES = 3
"""How often a process may be begun, by its manager, until it works."""


async def start(here: Here, words: Sequence[str], env_file: Path | None) -> None:
    """Start what does not run, and what it needs: services, then their workers when those answer.

    Args:
        words: what `expanded` takes; none: all.

    Raises:
        ConfigError: a word stands for nothing; the machine cannot run what is asked of it.
        MachineBusy: another process starts this machine now.
        MachineError: something cannot be started, or does not work.
    """
    if not await here.manager.runs():
        await _start_anew(here, words, env_file)
        return
    chosen = _with_needs(here.roster, here.names(words))
    if holder(here.root) is not None:
        await here.manager.start(*(one.name for one in chosen))
        return
    async with _health(chosen) as probes:
        for one in chosen:
            for needed in one.needs:
                await _until_well(here, needed, probes.get(needed))
            await here.manager.start(one.name)


def _with_needs(roster: Roster, names: Sequence[str]) -> tuple[Known, ...]:
    """Processes and all that they need, in the order of their start."""
    chosen = set(names or roster.names)
    for one in reversed(roster.processes):
        chosen |= set(one.needs) if one.name in chosen else set()
    return tuple(one for one in roster.processes if one.name in chosen)


async def _start_anew(here: Here, words: Sequence[str], env_file: Path | None) -> None:
    """Start what nobody keeps yet, in its order, and leave it to the manager."""
    with hold(here.root):
        plan = plan_here(env_file)
        roster = Roster(here.manager.kind, tuple(known(one) for one in plan.processes))
        chosen = {one.name for one in _with_needs(roster, expanded(roster, words))}
        await end_other_managers(here.manager, environment())
        await here.manager.apply(plan.processes)
        processes = [one for one in plan.processes if one.name in chosen]
        why = ""
        async with (
            _redis(plan.environ["HUB_REDIS_URL"], here.settings) as redis,
            httpx.AsyncClient(trust_env=False) as http,
            anyio.create_task_group() as group,
        ):
            watcher = Watcher(here.manager, processes, all_probes(processes, http, redis, here.settings))
            group.start_soon(watcher.run)
            await watcher.until(lambda: watcher.settled)
            group.cancel_scope.cancel()
            if watcher.hopeless:
                why = "; ".join(f"{name}: {one.reason}" for name, one in watcher.verdicts.items() if one.reason)
        if why:
            raise MachineError(
                f"no worker runs: {why}",
                hint="`emp machine logs` shows what they said, `emp machine install` installs what is missing",
            )


async def stop(here: Here, words: Sequence[str]) -> None:
    """End processes: workers let their jobs end first, then services end.

    Args:
        words: what `expanded` takes; none: all, and their manager, unless `emp machine up` holds the machine.

    Raises:
        ConfigError: a word stands for nothing.
        MachineError: something does not end.
    """
    if not await here.manager.runs():
        return
    meant = here.names(words) or here.roster.names
    await _note(here, meant)
    workers = [one.name for one in here.roster.processes if one.worker and one.name in meant]
    if workers:
        await here.manager.stop(*workers)
    if others := [name for name in meant if name not in workers]:
        await here.manager.stop(*others)
    if not words and holder(here.root) is None:
        await here.manager.shutdown()


async def restart(here: Here, words: Sequence[str]) -> None:
    """End processes and start them again, side by side.

    Args:
        words: what `expanded` takes; none: all.

    Raises:
        ConfigError: a word stands for nothing.
        MachineError: something does not end, or cannot be started.
    """
    names = here.names(words)
    await _note(here, names)
    await here.manager.restart(*names)


async def _note(here: Here, names: Sequence[str]) -> None:
    """Let whoever watches know that these do not end by themselves."""
    note_ended_by_hand(here.root, await here.manager.status(*names))


async def reload(here: Here, names: Sequence[str], on_well: Callable[[str], None]) -> None:
    """Restart processes one after another, each when the one before works again, and has registered again if it is a worker.

    Args:
        names: of processes; none: all.
        on_well: told of each that works again.

    Raises:
        ConfigError: nobody knows the hub.
        MachineError: one does not work again. Those after it were left as they are.
    """
    roster = here.roster
    workers = {one.name: one.worker for one in roster.processes if one.worker}
    async with _redis(hub_of(here), here.settings) as redis, httpx.AsyncClient(trust_env=False) as http:
        probes = all_probes(roster.processes, http, redis, here.settings)
        sessions = _Sessions(redis, Keys(here.settings.namespace), workers)
        before = {name: await sessions.of(name) for name in workers}

        async def until_well(name: str) -> None:
            await _until_well(here, name, probes.get(name))
            if name in workers:
                await _until_another(here, name, sessions, before[name])
            on_well(name)

        await _note(here, names)
        await here.manager.reload(*names, until_well=until_well)


class _Sessions:
    """Which process is registered under a worker's name: a killed one's heartbeat lasts for a while."""

    def __init__(self, client: Any, keys: Keys, workers: Mapping[str, str]) -> None:
        self._client = client
        self._keys = keys
        self._workers = workers

    async def of(self, name: str) -> str | None:
        """None: nobody is, or Redis is away."""
        try:
            found: str | None = await self._client.get(self._keys.worker(self._workers[name], "heartbeat"))
        except (RedisError, OSError):
            return None
        return found


async def _until_another(here: Here, name: str, sessions: _Sessions, before: str | None) -> None:
    with anyio.move_on_after(_LIVE_S + here.settings.redis_wait_s):
        while await sessions.of(name) in (None, before):  # noqa: ASYNC110 - Redis tells nobody
            await anyio.sleep(_LOOK_S)
        return
    raise _not_well(name, "it has not registered again")


async def _until_well(here: Here, name: str, probe: Probe | None) -> None:
    limit_s = _LIVE_S if probe is None else probe.start_s
    pids: set[int | None] = {None}
    [log] = [one.log for one in here.roster.processes if one.name == name]
    with anyio.move_on_after(limit_s):
        while True:
            [found] = await here.manager.status(name)
            pids.add(found.pid)
            if found.state is ProcessState.FAILED or len(pids) > _TRIES + 1:
                raise _not_well(name, found.reason or ": ".join(["it ended again and again", *last_lines(log, 1)]))
            if found.pid is not None and (probe is None or await probe.ask()):
                return
            await anyio.sleep(_LOOK_S)
    raise _not_well(name, f"it had {limit_s:g} s{'' if probe is None else f': {probe.problem}'}")


def _not_well(name: str, why: str) -> MachineError:
    return MachineError(
        f"{name} does not work: {why}",
        hint=f"the rest was left as it is; `emp machine logs {name}` shows what it said, and `emp machine install` installs "
        "what is missing",
        details={"process": name},
    )


@asynccontextmanager
async def _health(processes: Sequence[Known]) -> AsyncIterator[dict[str, Probe]]:
    services = [one for one in processes if not one.worker]
    async with httpx.AsyncClient(trust_env=False) as http:
        yield health_probes(services, http)


def hub_of(here: Here) -> str:
    """Where the workers' queue is: in the settings, or on this machine itself.

    Raises:
        ConfigError: nobody knows.
    """
    if here.settings.redis_url is not None:
        return here.settings.redis_url
    own = [one.endpoint for one in here.roster.processes if one.service == REDIS]
    if not own:
        raise ConfigError(
            "HUB_REDIS_URL is not set, and this machine has no Redis of its own",
            hint="set it, or name the file that sets it with --env-file: whether workers work is asked there",
        )
    return f"redis://{own[0]}"


@asynccontextmanager
async def _redis(url: str, settings: Settings) -> AsyncIterator[Any]:
    client = connect(url, settings)
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await client.aclose()
