"""Machines say what they are about, and go when they fall silent."""

from typing import Any

from attrs import evolve

from emp_core.queue.keys import Keys
from emp_core.queue.machines import SILENT_S, MachinePhase, MachineStatus, write_machine
from emp_core.queue.queue import JobQueue

STATUS = MachineStatus(
    machine_id="box-1",
    phase=MachinePhase.READY,
    detail="",
    gpus=({"index": 0, "model": "mock", "memory_mb": None},),
    disk={"free_mb": 1000, "total_mb": 2000},
    services={"notes-gpu0": {"standing": "well", "reason": "", "restarts": 1, "gpu": 0, "endpoint": "127.0.0.1:8188"}},
    workers={"worker-notes": {"standing": "waiting", "reason": "waits for notes-gpu0", "restarts": 0}},
    versions={"emp-core": "0.1.0"},
)


async def test_what_a_machine_says_is_listed_as_it_was_said(queue: JobQueue) -> None:
    assert await queue.machines() == []
    await write_machine(queue.client, queue.keys, STATUS)
    [found] = await queue.machines()
    assert found.status == STATUS
    assert 0 < found.alive_for_s <= SILENT_S


async def test_the_last_word_counts(queue: JobQueue) -> None:
    await write_machine(queue.client, queue.keys, STATUS)
    later = MachineStatus("box-1", MachinePhase.DRAINING, "SIGTERM")
    await write_machine(queue.client, queue.keys, later)
    assert [one.status for one in await queue.machines()] == [later]


async def test_its_hash_is_where_redis_cli_looks_for_it(queue: JobQueue) -> None:
    await write_machine(queue.client, queue.keys, STATUS)
    key = f"{queue.settings.namespace}machine:box-1:status"
    facts: dict[str, Any] = await queue.client.hgetall(key)
    assert facts["phase"] == "ready"
    assert facts["disk"] == '{"free_mb":1000,"total_mb":2000}'
    assert 0 < await queue.client.pttl(key) <= SILENT_S * 1000


async def test_a_silent_machine_is_listed_no_more_and_its_name_goes_with_the_next_word(queue: JobQueue) -> None:
    await write_machine(queue.client, queue.keys, STATUS)
    keys = Keys(queue.settings.namespace)
    await queue.client.pexpire(keys.machine("box-1", "status"), 1)
    await queue.client.zadd(keys.fixed("machines"), {"box-1": 0})

    async def silent() -> bool:
        return not await queue.client.exists(keys.machine("box-1", "status"))

    while not await silent():
        pass
    assert await queue.machines() == []
    await write_machine(queue.client, queue.keys, MachineStatus("box-2", MachinePhase.STARTING))
    assert await queue.client.zrange(keys.fixed("machines"), 0, -1) == ["box-2"]


async def test_machines_are_listed_by_name(queue: JobQueue) -> None:
    for name in ("b", "a", "c"):
        await write_machine(queue.client, queue.keys, MachineStatus(name, MachinePhase.READY))
    assert [one.status.machine_id for one in await queue.machines()] == ["a", "b", "c"]


async def test_a_machine_that_cannot_be_understood_hides_no_other(queue: JobQueue) -> None:
    """While a fleet is updated, some speak another version."""
    for machine_id, odd in (
        ("box-2", {"phase": "dancing"}),
        ("box-3", {"gpus": "no JSON"}),
        ("box-4", {"disk": "[1]"}),
    ):
        await write_machine(queue.client, queue.keys, evolve(STATUS, machine_id=machine_id))
        await queue.client.hset(queue.keys.machine(machine_id, "status"), mapping=odd)
    await write_machine(queue.client, queue.keys, STATUS)
    assert [one.status.machine_id for one in await queue.machines()] == ["box-1"]
