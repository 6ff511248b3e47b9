"""What an operator may do to jobs: change priorities, give failed ones a new run; and what the audit puts back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from emp_core.errors import ConfigError, IllegalTransition, JobNotFound
from emp_core.jobs.codec import encode_error
from emp_core.jobs.model import JobError, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue

from .hands import Hand, Hands, names_of_events, put


def failing(code: str) -> str:
    """An error as a worker writes it."""
    return encode_error(JobError(code, "it"))


async def fail(queue: JobQueue, hand: Hand, job_id: str, code: str = "job_failed", **spec: Any) -> None:
    """A job that failed."""
    await put(queue, job_id, priority=100, **spec)
    claimed = await hand.take_one()
    assert claimed.job.id == job_id
    await hand.finish(claimed, "failed", error=failing(code))


# -- priority --------------------------------------------------------------------------------------------------------


async def test_a_job_takes_the_place_that_its_priority_would_have_given_it(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    assert (await queue.set_priority("c", 51)).priority == 51
    await queue.set_priority("a", 49)
    assert await (await hands()).ids(3) == ["c", "b", "a"]
    assert "reprioritized" in await names_of_events(queue, "c")


async def test_a_job_that_is_not_due_yet_keeps_its_time_and_gets_its_place_then(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b")
    hand = await hands()
    await hand.finish(await hand.take_one(), "retry", delay_s=600.0)
    assert (await queue.set_priority("a", 0)).status == "scheduled"
    await queue.client.zadd(queue.keys.index("scheduled"), {"a": 1}, xx=True)
    await hand.house.sweep(rescue=True)
    assert await hand.ids(2) == ["b", "a"]


@pytest.mark.parametrize("lane", [{}, {"requirements": {"models": ["m"]}}], ids=["plain", "lane"])
@pytest.mark.parametrize("priority", [50, 51])
async def test_a_changed_priority_does_not_give_its_customer_the_turn_back(
    queue: JobQueue, hands: Hands, lane: dict[str, Any], priority: int
):
    """Else a customer would be served before all others by changing the priorities of its jobs again and again."""
    step_s = 0.00001
    async with JobQueue.connect(settings=evolve(queue.settings, priority_step_s=step_s)) as fine:
        await put(fine, "a1", "a2", "a3", customer_id="a", **lane)
        await put(fine, "b1", "b2", customer_id="b", **lane)
        hand = await hands({(await queue.get("a1")).lane: 0.0})
        assert await hand.ids(1) == ["a1"]
        await fine.set_priority("a2", priority)
        await fine.set_priority("a3", priority)
    assert await hand.ids(1) == ["b1"]
    assert sorted(await hand.ids(3)) == ["a2", "a3", "b2"]


async def test_a_priority_of_much_more_is_before_the_others_whoever_had_the_last_turn(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    await put(queue, "b1", "b2", customer_id="b")
    hand = await hands()
    assert await hand.ids(1) == ["a1"]
    await queue.set_priority("a3", 100)
    assert await hand.ids(2) == ["a3", "b1"]


async def test_a_job_of_a_customer_at_its_cap_keeps_waiting_for_it(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    hand = await hands(customer_cap=1)
    first = await hand.take_one()
    assert await hand.ids(2) == []
    await queue.set_priority("a3", 99)
    assert await hand.ids(2) == []
    await hand.finish(first)
    assert await hand.ids(2) == ["a3"]


async def test_the_priority_that_it_has_already_changes_nothing(queue: JobQueue):
    await put(queue, "a")
    await queue.set_priority("a", 50)
    assert "reprioritized" not in await names_of_events(queue, "a")


@pytest.mark.parametrize("priority", [-1, 101, 50.5, 50.0, "50", True, None])
async def test_what_is_no_priority_is_refused_before_it_is_written(queue: JobQueue, priority: Any):
    await put(queue, "a")
    with pytest.raises(ConfigError, match="a priority is a whole number from 0 to 100"):
        await queue.set_priority("a", priority)
    assert (await queue.get("a")).priority == 50


async def test_only_jobs_that_wait_have_a_place_to_change(queue: JobQueue, hands: Hands):
    with pytest.raises(JobNotFound):
        await queue.set_priority("a", 60)
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    with pytest.raises(IllegalTransition, match="job a is active"):
        await queue.set_priority("a", 60)
    await hand.finish(claimed)
    with pytest.raises(IllegalTransition, match="job a is completed"):
        await queue.set_priority("a", 60)


# -- a new run -------------------------------------------------------------------------------------------------------


async def test_failed_jobs_get_a_new_run_by_every_filter_that_is_given(queue: JobQueue, hands: Hands):
    hand = await hands({"echo": 0.0})
    await fail(queue, hand, "a1", "invalid_job", labels={"team": "art"})
    await fail(queue, hand, "a2", "job_failed", labels={"team": "art"})
    await fail(queue, hand, "b1", "job_failed", labels={"team": "sound"})
    await fail(queue, hand, "b2", "job_failed")

    async def retried(**filters: Any) -> list[str]:
        jobs = await queue.retry_failed(**filters)
        assert {job.status for job in jobs} <= {"pending"}
        return [job.id for job in jobs]

    assert await retried(service="paint") == []
    assert await retried(code="nosuch") == []
    assert await retried(label=("team", "nosuch")) == []
    assert await retried(label=("team", "art"), code="job_failed", service="echo") == ["a2"]
    assert await retried(code="job_failed", limit=1) == ["b2"]
    assert await retried(label=("team", "art")) == ["a1"]
    assert await retried() == ["b1"]
    assert sorted(await hand.ids(9)) == ["a1", "a2", "b1", "b2"]


async def test_the_limit_is_of_those_that_fit(queue: JobQueue, hands: Hands):
    """However many newer ones there are that do not."""
    hand = await hands()
    await fail(queue, hand, "old", "invalid_job")
    for i in range(3):
        await fail(queue, hand, f"new{i}")
    assert [job.id for job in await queue.retry_failed(code="invalid_job", limit=1)] == ["old"]


async def test_one_that_is_gone_or_runs_again_meanwhile_does_not_keep_the_others_from_their_run(
    queue: JobQueue, hands: Hands
):
    hand = await hands()
    for name in ("a", "gone", "b"):
        await fail(queue, hand, name)
    await queue.client.delete(queue.keys.payload("gone"))
    assert [job.id for job in await queue.retry_failed()] == ["b", "a"]
    await queue.client.zrem(queue.keys.index("failed"), "gone")
    await queue.client.delete(queue.keys.job("gone"), queue.keys.job_events("gone"))


@pytest.mark.parametrize("decision", ["retry", "release"])
async def test_a_new_run_is_for_every_worker_again(queue: JobQueue, hands: Hands, decision: str):
    """Whoever retries has mended something: the model that was missing is there now."""
    [job] = await put(queue, "a", requirements={"models": ["m"]})
    hand = await hands({job.lane: 0.0})
    moved = evolve(job.requirement, avoid=("w1",), not_here=("w1", "w2"))
    claimed = await hand.take_one()
    await hand.finish(claimed, decision, lane=moved.lane, requirement=moved.as_json(), error=failing("missing_model"))
    assert (await queue.get("a")).requirement == moved
    await queue.cancel("a")
    again = await queue.retry("a")
    assert again.requirement == job.requirement
    assert (again.lane, again.status, again.error) == (job.lane, "pending", None)
    assert await hand.ids(1) == ["a"]


async def test_a_job_that_was_cancelled_before_its_start_and_is_retried_waits_as_one_that_comes_now(
    queue: JobQueue, hands: Hands
):
    """Not behind everything that comes until the time when it should have begun."""
    later = datetime.now(UTC) + timedelta(hours=1)
    await put(queue, "a")
    await put(queue, "b", priority=60, start_at=later)
    await queue.cancel("b")
    await put(queue, "c")
    retried = await queue.retry("b")
    assert retried.status is JobState.PENDING
    assert retried.start_at is not None
    assert retried.start_at < later
    await put(queue, "d", priority=70)
    assert await (await hands()).ids(4) == ["d", "b", "a", "c"]


# -- the audit -------------------------------------------------------------------------------------------------------


async def all_kinds(queue: JobQueue, hands: Hands) -> dict[str, str]:
    """A job in each state; its id is its state's name with an a in front."""
    hand = await hands({"echo": 0.0, lane_of("m"): 0.0}, customer_cap=1)
    for name, decision in (("acompleted", "completed"), ("afailed", "failed")):
        await put(queue, name)
        await hand.finish(await hand.take_one(), decision)
    await put(queue, "acancelled")
    await queue.cancel("acancelled")
    await put(queue, "aactive", customer_id="c")
    assert await hand.ids(1) == ["aactive"]
    await put(queue, "aretried")
    await hand.finish(await hand.take_one(), "retry", delay_s=600.0)
    await put(queue, "aparked", customer_id="c")
    assert await hand.ids(1) == []
    await put(queue, "apending", "apending2")
    await put(queue, "alane", customer_id="d", requirements={"models": ["m"]})
    await put(queue, "beside", customer_id="e", requirements={"models": ["m"]})
    return {job.id: job.status for job in await queue.jobs(limit=100)}


def lane_of(model: str) -> str:
    return JobSpec("echo", requirements={"models": [model]}).requirement.lane


async def audited(hand: Hand) -> list[str]:
    """What one look at everything mends."""
    cursor, ids = await hand.house.some_jobs(0, 100_000)
    assert cursor == 0
    return sorted(await hand.house.audit(ids))


async def test_nothing_is_touched_when_all_is_well(queue: JobQueue, hands: Hands):
    await all_kinds(queue, hands)
    hand = await hands()
    states, stream = await queue.counts(), queue.keys.fixed("events")
    keys, written = sorted(await queue.client.keys(f"{queue.keys.namespace}*")), await queue.client.xlen(stream)
    assert await audited(hand) == []
    assert sorted(await queue.client.keys(f"{queue.keys.namespace}*")) == keys
    assert (await queue.counts(), await queue.client.xlen(stream)) == (states, written)


LOST = {
    "pending": "apending",
    "line": "apending",
    "turn": "alane",
    "head": "alane",
    "lane": "alane",
    "parked": "aparked",
    "active": "aactive",
    "scheduled": "aretried",
    "completed": "acompleted",
    "failed": "afailed",
    "cancelled": "acancelled",
}


@pytest.mark.parametrize("what", LOST)
async def test_a_job_that_stands_in_no_index_is_put_back(queue: JobQueue, hands: Hands, what: str):
    states = await all_kinds(queue, hands)
    lost, keys, client = LOST[what], queue.keys, queue.client
    lane, customer = (await queue.get(lost)).lane, (await queue.get(lost)).customer_id or ""
    match what:
        case "line":
            await client.zrem(keys.line(lane, customer), lost)
        case "turn":
            await client.zrem(keys.turns(lane), customer)
            await client.hdel(keys.fixed("waiting"), customer)
        case "head":
            await client.zrem(keys.fixed("heads"), lane)
        case "lane":
            await client.hdel(keys.fixed("lanes"), lane)
            await client.zrem(keys.fixed("heads"), lane)
        case "parked":
            await client.hdel(keys.parked(customer), lane)
        case _:
            await client.zrem(keys.index(what), lost)
    hand = await hands({"echo": 0.0, lane: 0.0})
    assert lost in await audited(hand)
    assert "mended" in await names_of_events(queue, lost)
    assert await audited(hand) == []
    assert {job.id: job.status for job in await queue.jobs(limit=100)} == states
    if states[lost] == "pending":
        assert lost in await hand.ids(20)
    if what == "active":
        await hand.house.sweep(rescue=True)
        assert (await queue.get(lost)).status == "pending"


async def test_what_does_not_wait_does_not_count_as_waiting(queue: JobQueue, hands: Hands):
    await all_kinds(queue, hands)
    hand = await hands()
    await queue.client.zadd(queue.keys.index("pending"), {"acompleted": 1, "aactive": 1})
    assert await audited(hand) == ["aactive", "acompleted"]
    assert await audited(hand) == []
    assert not {"acompleted", "aactive"} & set(await queue.client.zrange(queue.keys.index("pending"), 0, -1))


@pytest.mark.parametrize("reason", ["x" * 501, "\ud800", None], ids=["long", "no text", "none"])
async def test_a_reason_that_cannot_be_kept_cancels_nothing(queue: JobQueue, reason: Any):
    await put(queue, "a")
    with pytest.raises(ConfigError, match="a reason is a text of at most 500 characters"):
        await queue.cancel("a", reason=reason)
    await queue.cancel("a", reason="ü" * 500)
