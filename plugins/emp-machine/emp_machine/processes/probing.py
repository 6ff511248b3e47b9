"""How to find out whether a process works, beyond that it lives."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import httpx
from attrs import define, frozen
from redis.exceptions import RedisError

from emp_core.config import Settings
from emp_core.queue.keys import Keys
from emp_core.services.launch import HealthCheck
from emp_machine.plan.model import Process
from emp_machine.probe import is_healthy
from emp_machine.processes.roster import Known, known

__all__ = ["Probe", "Workers", "all_probes", "health_probes", "worker_probes"]

_FRESH_S = 1.0
_ANSWER_S = 5.0
_WORKER_EVERY_S = 5.0
_REGISTER_S = 60.0
"""How long a worker may take to register, besides the time that it waits for Redis."""


@frozen
class Probe:
    """A question to a process.

    Attributes:
        ask: whether it works; None: nobody can tell now.
        problem: what is wrong when it does not, in words.
        start_s: how long it may take until it works for the first time.
        every_s: how often to ask after that.
    """

    ask: Callable[[], Awaitable[bool | None]]
    problem: str
    start_s: float
    every_s: float


def all_probes(
    processes: Iterable[Process | Known], http: httpx.AsyncClient, redis: Any, settings: Settings
) -> dict[str, Probe]:
    """The probes of services and of workers, by name.

    Args:
        redis: redis-py's client.
    """
    those = [one if isinstance(one, Known) else known(one) for one in processes]
    workers = Workers(redis, Keys(settings.namespace))
    start_s = settings.redis_wait_s + _REGISTER_S
    return {**health_probes(those, http), **worker_probes(those, workers, start_s=start_s)}


def health_probes(processes: Iterable[Process | Known], client: httpx.AsyncClient) -> dict[str, Probe]:
    """The health checks of processes that have one, by name."""
    return {one.name: _health_probe(one, one.health, client) for one in processes if one.health is not None}


def _health_probe(process: Process | Known, health: HealthCheck, client: httpx.AsyncClient) -> Probe:
    host = _host_of(process)

    async def ask() -> bool:
        return await is_healthy(client, health, host)

    problem = (
        f"port {health.port} takes no connections"
        if health.url is None
        else f"{health.url} does not answer as it should"
    )
    return Probe(ask, problem, health.start_s, health.every_s)


def _host_of(process: Process | Known) -> str:
    """Where to knock: a process that listens everywhere is asked on this machine."""
    host = (process.endpoint or "").rpartition("//")[2].rpartition(":")[0].strip("[]")
    return host if host and host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - not listened on


@define
class Workers:
    """The workers that Redis knows, read once for all who ask within a second.

    Args:
        client: redis-py's.
    """

    _client: Any
    _keys: Keys
    _names: frozenset[str] | None = None
    _read_at_s: float = float("-inf")

    async def names(self) -> frozenset[str] | None:
        """Their names, ``WORKER_ID@MACHINE_ID``; None while Redis is away."""
        now_s = anyio.current_time()
        if now_s - self._read_at_s >= _FRESH_S:
            self._read_at_s = now_s
            self._names = await self._read()
        return self._names

    async def _read(self) -> frozenset[str] | None:
        try:
            with anyio.fail_after(_ANSWER_S):
                seconds, _ = await self._client.time()
                # A worker stands here until its heartbeat has ended, and until somebody has noticed.
                found = await self._client.zrangebyscore(self._keys.fixed("workers"), seconds * 1_000_000, "+inf")
                return frozenset(found)
        except (RedisError, OSError, TimeoutError):
            return None


def worker_probes(processes: Iterable[Known], workers: Workers, *, start_s: float) -> dict[str, Probe]:
    """Whether workers have registered and renew their heartbeat, by the names of their processes."""
    return {one.name: _worker_probe(one.worker, workers, start_s) for one in processes if one.worker}


def _worker_probe(worker: str, workers: Workers, start_s: float) -> Probe:
    async def ask() -> bool | None:
        names = await workers.names()
        return None if names is None else worker in names

    return Probe(ask, f"Redis knows no living worker {worker}", start_s, _WORKER_EVERY_S)
