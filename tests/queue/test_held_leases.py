"""What a worker holds while it, or Redis, stands still, and while Redis's clock jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from redis import exceptions

from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Consumer, Renewal
from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import JobQueue
from emp_core.worker.leases import Leases

from .hands import Hands, end_lease, put

LEASE_S = 3.0


class Time:
    """A clock that a test sets, for a process that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Renewals:
    """Counts renewals."""

    def __init__(self) -> None:
        self.count = 0
        self._more = anyio.Event()

    def __call__(self, renewal: Renewal) -> None:
        self.count += 1
        self._more.set()
        self._more = anyio.Event()

    async def reach(self, count: int) -> None:
        with anyio.fail_after(10):
            while self.count < count:
                await self._more.wait()


@asynccontextmanager
async def kept(consumer: Consumer, *, after_s: float = 0.0) -> AsyncIterator[tuple[Leases, Time, Renewals]]:
    time, renewals = Time(), Renewals()
    leases = Leases(consumer, LEASE_S, on_renewal=renewals, clock=time)
    time.now += after_s
    async with anyio.create_task_group() as group:
        group.start_soon(leases.run)
        await renewals.reach(1)
        yield leases, time, renewals
        group.cancel_scope.cancel()


async def test_a_lease_that_ended_while_the_process_stood_still_is_not_taken_up_again(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    async with kept(hand.consumer) as (leases, time, renewals):
        held = leases.hold(claimed)
        held.finished = True  # its outcome waits to be recorded
        await end_lease(queue, "a")
        time.now += 2 * LEASE_S
        leases.report(held, 50, None)
        await renewals.reach(2)
        assert held.stopped == "lost"
        assert await hand.finish(claimed) == (-1, "active")


async def test_a_worker_that_waited_long_before_it_began_did_not_stand_still(
    hands: Hands, caplog: pytest.LogCaptureFixture
):
    """As while Redis was away, or another process had its name."""
    hand = await hands()
    async with kept(hand.consumer, after_s=2 * LEASE_S):
        assert not [record for record in caplog.records if record.name == "emp.leases"]


async def test_a_process_that_stood_still_in_mid_call_does_not_take_its_leases_for_renewed(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    async with kept(hand.consumer) as (leases, time, renewals):
        held = leases.hold(claimed)
        renew = hand.consumer.renew

        async def slow(asked):
            try:
                return await renew(asked)
            finally:
                time.now += 2 * LEASE_S

        monkeypatch.setattr(hand.consumer, "renew", slow)
        leases.report(held, 50, None)
        await renewals.reach(2)
        assert held.stopped == "lost"


async def test_a_lease_that_ended_while_redis_was_away_is_taken_up_again(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    async with kept(hand.consumer) as (leases, time, renewals):
        held = leases.hold(claimed)
        renew = hand.consumer.renew
        tries = 0

        async def away(asked):
            nonlocal tries
            tries += 1
            if tries > 4:
                return await renew(asked)
            time.now += LEASE_S / 2  # each try takes its time to fail
            raise exceptions.TimeoutError

        monkeypatch.setattr(hand.consumer, "renew", away)
        leases.report(held, 50, None)
        await end_lease(queue, "a")
        await renewals.reach(2)
        assert held.stopped == ""
        assert await hand.finish(claimed) == (1, "completed")


async def test_a_job_that_comes_back_under_another_token_ends_the_attempt_under_the_first(
    queue: JobQueue, hands: Hands
):
    """The lease was lost, nobody noticed yet, and the job was given to this worker again."""
    await put(queue, "a")
    hand = await hands()
    async with kept(hand.consumer) as (leases, _, _):
        before = leases.hold(await hand.take_one())
        await end_lease(queue, "a")
        await hand.house.sweep(rescue=True)
        again = leases.hold(await hand.take_one())
        assert (before.stopped, again.stopped) == ("lost", "")
        leases.let_go(before)
        assert leases.find("a") is again


async def keeper_beside_an_ended_lease(queue: JobQueue, hands: Hands) -> tuple[Keeper, Time]:
    """A new keeper, and job ``a``, whose lease has ended."""
    await put(queue, "a")
    hand = await hands()
    await hand.take_one()
    await end_lease(queue, "a")
    time = Time()
    keeper = Keeper(hand.house, LEASE_S, clock=time)
    return keeper, time


async def test_a_new_keeper_gives_leases_time_after_a_jump_of_the_clock(queue: JobQueue, hands: Hands):
    """The keeper's own key ends in the jump as well: so whoever keeps house then is new."""
    keeper, time = await keeper_beside_an_ended_lease(queue, hands)
    seconds, _ = await queue.client.time()
    keeper.clock_seen(seconds - 60)
    await keeper._round()
    time.now += LEASE_S * 0.9
    await keeper._round()
    assert (await queue.get("a")).status is JobState.ACTIVE
    time.now += LEASE_S * 0.2
    await keeper._round()
    assert (await queue.get("a")).status is JobState.PENDING


async def test_a_keeper_that_may_not_rescue_yet_sleeps_until_it_may(queue: JobQueue, hands: Hands):
    keeper, time = await keeper_beside_an_ended_lease(queue, hands)
    assert await keeper._round() == pytest.approx(LEASE_S / 3)
    time.now += LEASE_S / 3 - 0.25
    assert await keeper._round() == pytest.approx(0.25)
    time.now += 0.25
    await keeper._round()
    assert (await queue.get("a")).status is JobState.PENDING


async def test_a_keeper_for_whom_redis_was_away_lets_the_others_renew_first(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    """All leases ended meanwhile, and it may be the first that reaches Redis again."""
    keeper, time = await keeper_beside_an_ended_lease(queue, hands)
    await keeper._round()
    time.now += LEASE_S / 3 + 0.1
    tried = anyio.Event()
    real = keeper._house.redis_s

    async def away() -> float:
        tried.set()
        raise exceptions.ConnectionError("gone")

    monkeypatch.setattr(keeper._house, "redis_s", away)
    async with anyio.create_task_group() as group:
        group.start_soon(keeper.run)
        keeper.keep()
        await tried.wait()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    monkeypatch.setattr(keeper._house, "redis_s", real)
    await keeper._round()
    assert (await queue.get("a")).status is JobState.ACTIVE
    time.now += LEASE_S / 3 + 0.1
    await keeper._round()
    assert (await queue.get("a")).status is JobState.PENDING


async def test_a_keeper_that_may_not_rescue_yet_is_told_of_what_else_is_due(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands(lease_s=600.0)
    await hand.take_one()
    await end_lease(queue, "a")
    await put(queue, "later", start_at=datetime.now(UTC) + timedelta(seconds=100))
    assert (await hand.house.sweep(rescue=False)).next_due_s == pytest.approx(100, abs=2)
    assert (await hand.house.sweep(rescue=True)).rescued == 1
