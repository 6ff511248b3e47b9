"""A worker of another version, or one that somebody wrote by hand: what cannot be understood of it stops nobody else."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, make_due, names_of_events, put

UNREADABLE: dict[str, dict[str, str | bytes]] = {
    "no JSON": {"services": "{"},
    "JSON of another shape": {"services": '["echo"]'},
    "a value of another kind": {"services": '{"echo":{"connector":"EchoConnector","slots":"many"}}'},
    "deeper than can be read": {"custom": "[" * 100_000},
    "no text": {"custom": b"\xff"},
}


async def unreadable(queue: JobQueue, hands: Hands, facts: dict[str, str | bytes], name: str = "odd") -> Hand:
    """A live worker whose entry has such facts."""
    hand = await hands({}, name=name)
    await queue.client.hset(queue.keys.worker(name, "capabilities"), mapping=facts)
    return hand


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "emp.workers"]


@pytest.mark.parametrize("facts", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_worker_that_cannot_be_understood_is_left_out_and_the_others_are_listed(
    queue: JobQueue, hands: Hands, caplog: pytest.LogCaptureFixture, facts: dict[str, str | bytes]
):
    await hands(name="before")
    await unreadable(queue, hands, facts)
    await hands(name="past")
    await put(queue, "a")
    assert sorted(worker.id for worker in await queue.workers()) == ["before", "past"]
    assert [verdict.worker_id for verdict in (await queue.explain("a")).workers] == ["before", "past"]
    [warning] = warnings(caplog)
    assert "worker='odd'" in warning
    assert len(warning) < 500
    await queue.client.delete(queue.keys.worker("odd", "capabilities"))


async def test_what_a_later_version_adds_is_no_hindrance(
    queue: JobQueue, hands: Hands, caplog: pytest.LogCaptureFixture
):
    more: Any = {"colour": '"blue"', "services": '{"echo":{"connector":"EchoConnector","shade":1}}'}
    await unreadable(queue, hands, more)
    assert [worker.id for worker in await queue.workers()] == ["odd"]
    assert warnings(caplog) == []


async def test_it_is_warned_of_again_when_something_else_is_wrong_with_it_or_it_was_well_meanwhile(
    queue: JobQueue, hands: Hands, caplog: pytest.LogCaptureFixture
):
    odd = await unreadable(queue, hands, {"custom": "{"})

    async def seen() -> int:
        await queue.workers()
        await queue.workers()
        return len(warnings(caplog))

    assert await seen() == 1
    await queue.client.hset(queue.keys.worker("odd", "capabilities"), "custom", "[]")
    assert await seen() == 2
    assert await odd.register({}) == 1
    assert await seen() == 2
    await queue.client.hset(queue.keys.worker("odd", "capabilities"), "custom", "[]")
    assert await seen() == 3


async def test_the_keeper_goes_on(queue: JobQueue, hands: Hands, caplog: pytest.LogCaptureFixture):
    keeping = await hands({"other": 0.0}, name="keeping")
    gone = await hands(name="gone")
    await put(queue, "a")
    await unreadable(queue, hands, {"services": "{"})
    await make_due(queue, "workers", gone.name)
    keeper = Keeper(keeping.house, queue.settings.lease_s)
    keeper.keep()
    async with anyio.create_task_group() as group:
        group.start_soon(keeper.run)
        with anyio.fail_after(10):
            while "unserved" not in await names_of_events(queue, "a"):
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert len(warnings(caplog)) == 1
