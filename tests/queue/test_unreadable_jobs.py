"""A job of which something cannot be read, by a newer version or somebody's own client: the rest of it is shown, and all others."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum

import pytest
from attrs import evolve

from emp_core.errors import QueueError
from emp_core.jobs.codec import as_shown, dumps
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.estimate import Readiness, left_to_a_warmer_one_s, mean_run_s
from emp_core.queue.queue import JobQueue

from .hands import Hands, put

BROKEN: dict[str, tuple[str, str]] = {
    "a time past year 9999": ("deadline_at", "253402300800000000"),
    "a time past all numbers": ("start_at", "9" * 400),
    "a time that is none": ("created_at", "tomorrow"),
    "a number that is none": ("priority", "P.HIGH"),
    "a number without end": ("timeout_s", "inf"),
    "an error of another shape": ("error", '{"of": "tomorrow"}'),
    "labels that are a list": ("labels", '["team"]'),
    "a result that is no JSON": ("result", "{"),
    "a result deeper than can be read": ("result", "[" * 100_000),
    "a requirement of another kind": ("requirement", '{"service": "echo", "phase": "moon"}'),
    "a place of another kind": ("ctx", '{"planet": "mars"}'),
    "a store that is none": ("ctx", '{"storage": ["mars"]}'),
}


@pytest.mark.parametrize(("name", "text"), BROKEN.values(), ids=BROKEN)
async def test_a_job_is_shown_without_what_cannot_be_read_of_it_and_says_what_that_is(
    queue: JobQueue, name: str, text: str
):
    await put(queue, "before")
    await put(queue, "odd", payload={"n": 1}, customer_id="c")
    await put(queue, "past")
    await queue.client.hset(queue.keys.job("odd"), name, text)
    job = await queue.get("odd")
    assert (job.status, job.customer_id, job.payload) == ("pending", "c", {"n": 1})
    [problem] = job.unreadable
    assert problem.startswith(f"{name}: ")
    assert len(problem) < 300
    assert as_shown(job)["unreadable"] == (problem,)
    assert dumps(as_shown(job))
    listed = await queue.jobs()
    assert [job.id for job in listed] == ["past", "odd", "before"]
    assert [job.unreadable for job in listed] == [(), (problem,), ()]
    assert (await queue.explain("odd")).status == "pending"
    assert (await queue.cancel("odd")).status == "cancelled"


@pytest.mark.parametrize("text", ["tomorrow", "nan", "-inf"])
async def test_a_job_that_waits_is_explained_by_how_long_those_ran_that_can_be_read(
    queue: JobQueue, hands: Hands, text: str
):
    hand = await hands()
    await put(queue, "fine", "odd", "waits")
    for claimed in await hand.take(2):
        await hand.finish(claimed)
    await queue.client.hset(queue.keys.job("odd"), "started_at", text)
    recent = await mean_run_s(queue._open.calls, "echo")
    assert recent is not None
    assert (recent[0] >= 0, recent[1]) == (True, 1)
    assert (await queue.explain("waits")).position == 1


async def test_a_time_that_cannot_be_read_keeps_nobody_from_looking_whether_the_queue_gets_on(
    queue: JobQueue, hands: Hands
):
    await put(queue, "odd", "waits", requirements={"models": ["fox"]})
    await queue.client.hset(queue.keys.job("odd"), "created_at", "tomorrow")
    oldest = (await queue.health()).oldest_waiting
    assert oldest is not None
    assert oldest.job_id == "waits"
    both = [Readiness("cold", 90_000, is_free=True), Readiness("warm", 0, is_free=False)]
    assert await left_to_a_warmer_one_s(queue._open.calls, await queue.get("odd"), both) is None


async def test_a_payload_that_cannot_be_read_is_left_out(queue: JobQueue):
    await put(queue, "odd")
    await queue.client.set(queue.keys.payload("odd"), "{")
    job = await queue.get("odd")
    assert job.payload is None
    assert [problem.partition(":")[0] for problem in job.unreadable] == ["payload"]


async def test_a_key_of_a_store_is_not_told_with_what_cannot_be_read(queue: JobQueue):
    await put(queue, "odd")
    broken = {"ctx": '{"storage": 7}', "ctx_key": "geheim"}
    await queue.client.hset(queue.keys.job("odd"), mapping=broken)
    job = await queue.get("odd")
    assert len(job.unreadable) == 1
    assert "geheim" not in repr(job) + dumps(as_shown(job))


async def test_a_job_in_a_state_of_another_version_is_refused_by_its_name_and_left_out_of_listings(
    queue: JobQueue, caplog: pytest.LogCaptureFixture
):
    await put(queue, "a", "odd")
    await queue.client.hset(queue.keys.job("odd"), "status", "paused")
    with pytest.raises(QueueError, match="job odd is in a state that is not known here: 'paused'"):
        await queue.get("odd")
    assert [job.id for job in await queue.jobs()] == ["a"]
    [warning] = [record.getMessage() for record in caplog.records if record.name == "emp.queue"]
    assert "job='odd'" in warning
    await queue.client.hset(queue.keys.job("odd"), "status", "pending")


# -- what submit takes -----------------------------------------------------------------------------------------------


class Level(int, Enum):
    """A number whose text is its name."""

    HIGH = 100


LAST = datetime.max.replace(tzinfo=UTC)
EXTREMES: dict[str, Mapping[str, object]] = {
    "the last moment": {"start_at": LAST, "deadline_at": LAST},
    "the first moment": {"start_at": datetime.min.replace(tzinfo=UTC)},
    "the last moment elsewhere": {"start_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=14)))},
    "the most": {"priority": 100, "max_attempts": 1_000_000, "timeout_s": 1.7e308, "estimated_duration_s": 10**300},
    "the least": {"priority": 0, "max_attempts": 1, "timeout_s": 5e-324, "estimated_duration_s": 5e-324},
    "a number with a name": {"priority": Level.HIGH, "max_attempts": Level.HIGH, "timeout_s": Level.HIGH},
}


@pytest.mark.parametrize("said", EXTREMES.values(), ids=EXTREMES)
async def test_the_most_and_the_least_that_submit_takes_comes_back_and_is_explained_and_listed(
    queue: JobQueue, hands: Hands, said: Mapping[str, object]
):
    await hands()
    await queue.submit(JobSpec("echo", id="a", **said))  # type: ignore[arg-type]
    job = await queue.get("a")
    assert job.unreadable == ()
    for name, value in said.items():
        kept = getattr(job, name)
        assert kept == (float(value) if isinstance(kept, float) else value), name  # type: ignore[arg-type]
    assert dumps(as_shown(job))
    assert await queue.jobs() == [evolve(job, payload=None)]
    explanation = await queue.explain("a")
    assert (explanation.status, bool(explanation.summary)) == (job.status, True)
    assert [event.name for event in await queue.history("a")] == ["submitted"]
    assert (await queue.health()).problems == ()
    if job.status is JobState.SCHEDULED:
        assert "begin at 9999-12-31" in explanation.summary
