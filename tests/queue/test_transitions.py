"""The moves that jobs really make are those of the table, each by the script that the table names."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from emp_core.errors import IllegalTransition
from emp_core.jobs.model import Destination, JobSpec
from emp_core.jobs.states import TRANSITIONS, JobState
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, end_lease, make_due, names_of_events

if TYPE_CHECKING:
    from emp_core.queue.consumer import ClaimedJob

LATER = timedelta(hours=1)
OWN_STORE = Destination(storage={"bucket": "pictures", "accountName": "studio7", "accountKey": "geheim"})


class Life:
    """One job, and calls to single scripts."""

    def __init__(self, queue: JobQueue, hand: Hand) -> None:
        self.queue = queue
        self.hand = hand
        self.claimed: ClaimedJob | None = None

    async def status(self) -> JobState | None:
        text = await self.queue.client.hget(self.queue.keys.job("job"), "status")
        return None if text is None else JobState(text)

    async def submit(self, **spec: object) -> None:
        await self.queue.submit(JobSpec("echo", id="job", **spec))  # type: ignore[arg-type]

    async def submit_later(self) -> None:
        await self.submit(start_at=datetime.now(UTC) + LATER)

    async def submit_for_once(self) -> None:
        await self.submit(max_attempts=1)

    async def submit_with_deadline(self) -> None:
        await self.submit(deadline_at=datetime.now(UTC) + LATER)

    async def submit_later_with_deadline(self) -> None:
        await self.submit(start_at=datetime.now(UTC) + LATER, deadline_at=datetime.now(UTC) + LATER)

    async def wait_for_jobs(self) -> None:
        await self.submit_other()
        assert (await self.hand.wait_for_jobs()).jobs == ()

    async def submit_other(self) -> None:
        """Makes the lane known."""
        await self.queue.submit(JobSpec("echo", id="other"))
        await self.hand.finish(await self.hand.take_one())

    async def retire(self) -> None:
        await self.hand.consumer.retire()

    async def claim(self) -> None:
        self.claimed = await self.hand.take_one()

    def finish(self, decision: str, delay_s: float = 0) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            assert self.claimed is not None
            code, _ = await self.hand.finish(self.claimed, decision, delay_s=delay_s)
            assert code == 1

        return call

    async def cancel(self) -> None:
        await self.queue.cancel("job")

    async def lose_worker(self) -> None:
        await end_lease(self.queue, "job")
        await self.hand.house.sweep(rescue=True)

    async def pass_deadline(self) -> None:
        await make_due(self.queue, "deadlines", "job")
        await self.hand.house.sweep(rescue=True)

    async def promote(self) -> None:
        await make_due(self.queue, "scheduled", "job")
        await self.hand.house.sweep(rescue=True)

    async def retry(self) -> None:
        await self.queue.retry("job")


Step = Callable[[Life], Callable[[], Awaitable[None]]]

MOVES: dict[tuple[str, JobState | None, JobState], list[Step]] = {
    ("submit", None, JobState.PENDING): [lambda life: life.submit],
    ("submit", None, JobState.SCHEDULED): [lambda life: life.submit_later],
    ("submit", None, JobState.ACTIVE): [lambda life: life.wait_for_jobs, lambda life: life.submit],
    ("retire", JobState.ACTIVE, JobState.PENDING): [
        lambda life: life.wait_for_jobs,
        lambda life: life.submit,
        lambda life: life.retire,
    ],
    ("retire", JobState.ACTIVE, JobState.CANCELLED): [
        lambda life: life.wait_for_jobs,
        lambda life: life.submit,
        lambda life: life.cancel,
        lambda life: life.retire,
    ],
    ("claim", JobState.PENDING, JobState.ACTIVE): [lambda life: life.submit, lambda life: life.claim],
    **{
        ("finish", JobState.ACTIVE, after): [
            lambda life: life.submit,
            lambda life: life.claim,
            lambda life, how=how: life.finish(*how),  # type: ignore[misc]
        ]
        for after, how in {
            JobState.COMPLETED: ("completed",),
            JobState.FAILED: ("failed",),
            JobState.CANCELLED: ("cancelled",),
            JobState.SCHEDULED: ("retry", 60.0),
            JobState.PENDING: ("release",),
        }.items()
    },
    ("cancel", JobState.PENDING, JobState.CANCELLED): [lambda life: life.submit, lambda life: life.cancel],
    ("cancel", JobState.SCHEDULED, JobState.CANCELLED): [lambda life: life.submit_later, lambda life: life.cancel],
    ("sweep", JobState.SCHEDULED, JobState.PENDING): [lambda life: life.submit_later, lambda life: life.promote],
    ("sweep", JobState.SCHEDULED, JobState.FAILED): [
        lambda life: life.submit_later_with_deadline,
        lambda life: life.pass_deadline,
    ],
    ("sweep", JobState.PENDING, JobState.FAILED): [
        lambda life: life.submit_with_deadline,
        lambda life: life.pass_deadline,
    ],
    ("sweep", JobState.ACTIVE, JobState.PENDING): [
        lambda life: life.submit,
        lambda life: life.claim,
        lambda life: life.lose_worker,
    ],
    ("sweep", JobState.ACTIVE, JobState.FAILED): [
        lambda life: life.submit_for_once,
        lambda life: life.claim,
        lambda life: life.lose_worker,
    ],
    ("sweep", JobState.ACTIVE, JobState.CANCELLED): [
        lambda life: life.submit,
        lambda life: life.claim,
        lambda life: life.cancel,
        lambda life: life.lose_worker,
    ],
    ("retry", JobState.FAILED, JobState.PENDING): [
        lambda life: life.submit,
        lambda life: life.claim,
        lambda life: life.finish("failed"),
        lambda life: life.retry,
    ],
    ("retry", JobState.CANCELLED, JobState.PENDING): [
        lambda life: life.submit,
        lambda life: life.cancel,
        lambda life: life.retry,
    ],
}


def test_every_move_of_the_table_is_made_here():
    assert set(MOVES) == {(script, *move) for script, moves in TRANSITIONS.items() for move in moves}


@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move[0]}-{move[1] or 'none'}-{move[2]}")
async def test_a_move_of_the_table_is_made(queue: JobQueue, hands: Hands, move: tuple[str, JobState | None, JobState]):
    life = Life(queue, await hands())
    *before, last = MOVES[move]
    for step in before:
        await step(life)()
    assert await life.status() == move[1]
    await last(life)()
    assert await life.status() == move[2]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_a_final_state_stays(queue: JobQueue, hands: Hands, end: str):
    life = Life(queue, await hands())
    await life.submit_with_deadline()
    await life.claim()
    await life.finish(end)()
    events = await names_of_events(queue, "job")
    for decision in ("completed", "failed", "cancelled", "retry", "release"):
        assert life.claimed is not None
        assert await life.hand.finish(life.claimed, decision) == (0, end)
    if end != "cancelled":
        with pytest.raises(IllegalTransition, match=f"job job is {end}"):
            await queue.cancel("job")
    await life.lose_worker()
    await life.pass_deadline()
    await life.promote()
    assert await life.hand.ids(5) == []
    assert await life.status() == end
    assert await names_of_events(queue, "job") == events


async def test_a_completed_job_is_not_retried(queue: JobQueue, hands: Hands):
    life = Life(queue, await hands())
    await life.submit()
    await life.claim()
    await life.finish("completed")()
    with pytest.raises(IllegalTransition, match="job job is completed"):
        await queue.retry("job")


@pytest.mark.parametrize("state", ["pending", "scheduled", "active", "released"])
async def test_a_job_that_never_failed_and_was_never_cancelled_is_not_retried(
    queue: JobQueue, hands: Hands, state: str
):
    life = Life(queue, await hands())
    await (life.submit_later() if state == "scheduled" else life.submit())
    if state in ("active", "released"):
        await life.claim()
    if state == "released":
        await life.finish("release")()
    is_now = "pending" if state == "released" else state
    with pytest.raises(IllegalTransition, match=f"job job is {is_now}: only failed and cancelled jobs are retried"):
        await queue.retry("job")
    assert await life.status() == is_now
    assert "revived" not in await names_of_events(queue, "job")


async def test_cancelling_twice_is_cancelling(queue: JobQueue, hands: Hands):
    """A call whose reply was lost is made again."""
    life = Life(queue, await hands())
    await life.submit()
    await life.cancel()
    await life.cancel()
    assert (await names_of_events(queue, "job")).count("cancelled") == 1


@pytest.mark.parametrize("store", [None, OWN_STORE])
async def test_a_completed_job_keeps_no_error_of_before_and_no_key_of_its_store(
    queue: JobQueue, hands: Hands, store: Destination | None
):
    hand = await hands()
    await queue.submit(JobSpec("echo", id="job", ctx=store))
    refused = await hand.take_one()
    assert await hand.finish(refused, "retry", error='{"code":"service_failed"}') == (1, "pending")
    before = await queue.client.hgetall(queue.keys.job("job"))
    assert ("error" in before, "ctx_key" in before) == (True, store is not None)
    assert await hand.finish(await hand.take_one()) == (1, "completed")
    assert not {"error", "ctx_key"} & set(await queue.client.hgetall(queue.keys.job("job")))


async def test_a_completed_job_without_an_error_keeps_no_key_of_its_store(queue: JobQueue, hands: Hands):
    hand = await hands()
    await queue.submit(JobSpec("echo", id="job", ctx=OWN_STORE))
    assert await hand.finish(await hand.take_one()) == (1, "completed")
    assert "ctx_key" not in await queue.client.hgetall(queue.keys.job("job"))
