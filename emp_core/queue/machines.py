"""Machines as Redis knows them: what each says of itself, as a hash that goes when it falls silent."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import cattrs
from attrs import field, frozen

from emp_core.jobs.codec import dumps
from emp_core.log.logger import get_logger
from emp_core.queue.keys import Keys

__all__ = ["SILENT_S", "MachinePhase", "MachineStatus", "MachineView", "read_machines", "write_machine"]

SILENT_S = 30.0
"""A machine that was silent for so long is not listed any more. It speaks three times as often."""

log = get_logger("emp.machines")

_INDEX_S = 86_400
_TEXTS = ("machine_id", "phase", "detail")
_converter = cattrs.Converter()


class MachinePhase(StrEnum):
    """What a machine is about."""

    STARTING = "starting"
    INSTALLING = "installing"
    READY = "ready"
    DRAINING = "draining"
    SHUTDOWN = "shutdown"


@frozen
class MachineStatus:
    """What a machine says of itself.

    Attributes:
        detail: what it is doing, or what is wrong, in a sentence; may be empty.
        gpus: for each ``index``, ``model``, ``memory_mb``, ``memory_used_mb`` and ``utilization`` (0 to 100), as far as the
            driver tells.
        disk: ``free_mb`` and ``total_mb`` where it keeps what it installs.
        services: by the name of each instance: ``standing``, ``reason``, ``restarts``, ``gpu``, ``endpoint``.
        workers: the same of each worker.
        versions: by the name of what it runs.
    """

    machine_id: str
    phase: MachinePhase
    detail: str = ""
    gpus: tuple[Mapping[str, Any], ...] = ()
    disk: Mapping[str, int] = field(factory=dict)
    services: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    workers: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    versions: Mapping[str, str] = field(factory=dict)


@frozen
class MachineView:
    """A machine that speaks.

    Attributes:
        alive_for_s: how long it still counts, should it be silent from now on.
    """

    status: MachineStatus
    alive_for_s: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        shown: dict[str, Any] = _converter.unstructure(self.status)
        return {**shown, "alive_for_s": round(self.alive_for_s, 1)}


async def write_machine(client: Any, keys: Keys, status: MachineStatus) -> None:
    """Say what a machine is about. To be said again within `SILENT_S`; may be repeated."""
    facts = {name: value if name in _TEXTS else dumps(value) for name, value in _converter.unstructure(status).items()}
    seconds, _ = await client.time()
    key = keys.machine(status.machine_id, "status")
    async with client.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        pipe.hset(key, mapping=facts)
        pipe.pexpire(key, round(SILENT_S * 1000))
        pipe.zadd(keys.fixed("machines"), {status.machine_id: (seconds + SILENT_S) * 1_000_000})
        pipe.zremrangebyscore(keys.fixed("machines"), "-inf", seconds * 1_000_000)
        pipe.expire(keys.fixed("machines"), _INDEX_S)
        await pipe.execute()


async def read_machines(client: Any, keys: Keys) -> list[MachineView]:
    """The machines that speak, by name. What one says that cannot be understood is warned of, and left out."""
    ids = sorted(await client.zrange(keys.fixed("machines"), 0, -1))
    async with client.pipeline(transaction=False) as pipe:
        for machine_id in ids:
            pipe.hgetall(keys.machine(machine_id, "status"))
            pipe.pttl(keys.machine(machine_id, "status"))
        replies = await pipe.execute()
    found: list[MachineView] = []
    for machine_id, facts, ttl_ms in zip(ids, replies[::2], replies[1::2], strict=True):
        if not facts or ttl_ms <= 0:
            continue
        try:
            found.append(MachineView(_decoded(facts), ttl_ms / 1000))
        except (ValueError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
            log.warning("what a machine says cannot be understood", machine=machine_id, error=str(error))
    return found


def _decoded(facts: Mapping[str, str]) -> MachineStatus:
    values = {name: text if name in _TEXTS else json.loads(text) for name, text in facts.items()}
    return _converter.structure(values, MachineStatus)
