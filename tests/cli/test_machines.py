"""`emp machines`: the fleet, as it says of itself."""

import anyio
from redis.asyncio import Redis

from emp_core.queue.keys import Keys
from emp_core.queue.machines import MachinePhase, MachineStatus, write_machine

from .conftest import Emp


def say(url: str, namespace: str, *statuses: MachineStatus) -> None:
    async def write() -> None:
        async with Redis.from_url(url, decode_responses=True, protocol=2) as client:
            for status in statuses:
                await write_machine(client, Keys(namespace), status)

    anyio.run(write)


def test_machines_are_listed_with_what_is_wrong_with_them(emp: Emp, redis_url: str, namespace: str):
    where = {"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace}
    none = emp("machines", environ=where)
    assert (none.code, none.out) == (0, "")
    assert "No machine speaks" in none.err

    gone = {"standing": "given up", "reason": "port 8188 takes no connections"}
    say(
        redis_url,
        namespace,
        MachineStatus(
            "box-1",
            MachinePhase.READY,
            gpus=({"index": 0, "model": "A100"}, {"index": 1, "model": "A100"}),
            disk={"free_mb": 20480},
            services={"notes-gpu0": {"standing": "well"}, "notes-gpu1": gone},
            workers={"worker-notes": {"standing": "well"}},
        ),
        MachineStatus("box-2", MachinePhase.INSTALLING, "notes: fetching \x1b[31m"),
    )
    header, first, second = emp("machines", environ=where).out.splitlines()
    assert header.split() == ["MACHINE", "PHASE", "GPUS", "DISK", "FREE", "SERVICES", "WORKERS", "ABOUT"]
    assert first.split("  ")[0] == "box-1"
    assert "2 x A100" in first
    assert "20 GB" in first
    assert "1 of 2" in first
    assert "notes-gpu1 is given up: port 8188 takes no connections" in first
    assert "notes: fetching" in second
    assert "\x1b" not in second
    shown = emp("machines", "--json", environ=where).data
    assert [(one["machine_id"], one["phase"]) for one in shown] == [("box-1", "ready"), ("box-2", "installing")]
