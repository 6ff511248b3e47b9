"""Replies are lost: whoever makes the same call again gets the same answer, and nothing happens twice."""

from datetime import datetime, timedelta, timezone

import pytest

from emp_core.errors import DuplicateJob, QueueFull
from emp_core.jobs.codec import encode_spec
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.consumer import Lease
from emp_core.queue.queue import JobQueue
from emp_core.queue.submitting import Submitter

from .hands import Hands, end_lease, names_of_events, put


async def test_the_same_claim_gives_the_same_jobs(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c", "d")
    hand = await hands()
    first = await hand.take(2, token="t")
    again = await hand.take(2, token="t")
    assert again == first
    assert [claimed.job.id for claimed in again] == ["a", "b"]
    assert again[0].job.payload == {}
    for job_id in ("a", "b"):
        assert (await names_of_events(queue, job_id)).count("claimed") == 1
    assert (await queue.get("a")).attempt == 1


async def test_the_same_claim_leaves_out_what_is_not_ours_any_more(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    hand = await hands()
    first, *_ = await hand.take(3, token="t")
    await hand.finish(first)
    await end_lease(queue, "b")
    await hand.house.sweep(rescue=True)
    assert await hand.ids(3, token="t") == ["c"]


async def test_the_same_outcome_is_recorded_once(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    result = '{"success":true,"data":{"n":1},"artifacts":[]}'
    assert await hand.finish(claimed, result=result) == (1, "completed")
    assert await hand.finish(claimed, result=result) == (0, "completed")
    assert (await names_of_events(queue, "a")).count("completed") == 1


@pytest.mark.parametrize(("decision", "status"), [("retry", "pending"), ("release", "pending")])
async def test_the_same_return_to_the_queue_is_made_once(queue: JobQueue, hands: Hands, decision: str, status: str):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    assert await hand.finish(claimed, decision) == (1, status)
    attempt = (await queue.get("a")).attempt
    assert await hand.finish(claimed, decision) == (0, status)
    assert (await queue.get("a")).attempt == attempt


async def test_an_old_return_to_the_queue_does_not_touch_the_next_attempt(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    first = await hand.take_one()
    await hand.finish(first, "retry")
    second = await hand.take_one()
    assert await hand.finish(first, "retry") == (-1, "active")
    assert await hand.finish(second) == (1, "completed")


async def test_one_batch_of_outcomes_may_name_a_job_twice(queue: JobQueue, hands: Hands):
    from emp_core.queue.consumer import Finish

    await put(queue, "a", customer_id="c")
    hand = await hands()
    claimed = await hand.take_one()
    finishes = [Finish("a", claimed.token, "release"), Finish("a", claimed.token, "completed")]
    assert await hand.consumer.finish(finishes) == [(1, "pending"), (0, "pending")]


async def test_no_outcomes_are_no_problem(hands: Hands):
    assert await (await hands()).consumer.finish([]) == []


async def test_the_same_submit_takes_the_job_once(queue: JobQueue):
    """The very same call, sent again because its reply was lost."""
    parts = queue._open
    submitter = Submitter(parts.calls, queue.settings, parts.expectations, get=queue.get, workers=queue.workers)
    sent: list[object] = []
    send = submitter._send

    async def twice(calls):
        sent.append(await send(calls))
        return await send(calls)

    submitter._send = twice  # type: ignore[method-assign]
    jobs = await submitter.submit_many([JobSpec("echo", {"n": n}) for n in range(3)], strict=False)
    assert len(sent) == 1
    assert [job.payload for job in jobs] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert await queue.counts() == {state: 3 if state is JobState.PENDING else 0 for state in JobState}
    assert (await names_of_events(queue, jobs[0].id)).count("submitted") == 1


async def test_a_job_with_an_id_of_its_own_is_taken_once(queue: JobQueue):
    [first] = await put(queue, "mine", payload={"n": 1})
    [again] = await put(queue, "mine", payload={"n": 1})
    assert again == await queue.get("mine")
    assert again.created_at == first.created_at
    with pytest.raises(DuplicateJob) as refused:
        await put(queue, "mine", payload={"n": 2})
    assert refused.value.details == {"job_id": "mine"}
    assert (await queue.counts())[JobState.PENDING] == 1


async def test_an_idempotency_key_gives_the_first_job_again(queue: JobQueue, hands: Hands):
    first = await queue.submit(JobSpec("echo", {"n": 1}, idempotency_key="k"))
    hand = await hands()
    await hand.finish(await hand.take_one())
    again = await queue.submit(JobSpec("echo", {"n": 1}, idempotency_key="k"))
    assert (again.id, again.status) == (first.id, JobState.COMPLETED)
    with pytest.raises(DuplicateJob):
        await queue.submit(JobSpec("echo", {"n": 2}, idempotency_key="k"))
    with pytest.raises(DuplicateJob):
        await queue.submit(JobSpec("echo", {"n": 1}, idempotency_key="k", priority=60))


async def test_the_same_body_in_another_order_gives_the_first_job_again(queue: JobQueue):
    said = JobSpec("echo", {"a": 1, "b": {"c": 2, "d": 3}}, idempotency_key="k", labels={"x": "1", "y": "2"})
    first = await queue.submit(said)
    again = {"b": {"d": 3, "c": 2}, "a": 1}
    repeated = await queue.submit(JobSpec("echo", again, idempotency_key="k", labels={"y": "2", "x": "1"}))
    assert (repeated.id, repeated.payload) == (first.id, {"a": 1, "b": {"c": 2, "d": 3}})
    with pytest.raises(DuplicateJob):
        await queue.submit(JobSpec("echo", {**again, "a": 1.0}, idempotency_key="k", labels={"x": "1", "y": "2"}))


async def test_a_job_that_came_before_order_made_no_difference_is_known_again_by_its_own_order(queue: JobQueue):
    said = JobSpec("echo", {"b": 2, "a": 1}, id="a")
    digest, before = encode_spec(said, max_payload_bytes=1000).digest.split()
    [first] = await put(queue, "a", payload=said.payload)
    assert await queue.client.hget(queue.keys.job("a"), "digest") == digest
    await queue.client.hset(queue.keys.job("a"), "digest", before)
    [again] = await put(queue, "a", payload=said.payload)
    assert again.created_at == first.created_at
    with pytest.raises(DuplicateJob):
        await put(queue, "a", payload={"b": 3, "a": 1})
    await queue.client.hdel(queue.keys.job("a"), "digest")
    with pytest.raises(DuplicateJob):
        await put(queue, "a", payload=said.payload)


async def test_a_key_whose_job_was_forgotten_is_free_again(queue: JobQueue):
    first = await queue.submit(JobSpec("echo", idempotency_key="k"))
    await queue.client.delete(queue.keys.job(first.id), queue.keys.payload(first.id), queue.keys.job_events(first.id))
    await queue.client.zrem(queue.keys.index("pending"), first.id)
    await queue.client.delete(*[f"{queue.keys.namespace}lane:echo{rest}" for rest in ("", ":line:")])
    await queue.client.delete(*[queue.keys.fixed(name) for name in ("heads", "lanes", "waiting")])
    second = await queue.submit(JobSpec("echo", idempotency_key="k"))
    assert second.id != first.id


async def test_a_key_whose_job_was_forgotten_puts_no_job_over_one_that_lives(queue: JobQueue, hands: Hands):
    await put(queue, "a", payload={"n": 1}, idempotency_key="k")
    await queue.client.set(f"{queue.keys.namespace}idem:k", "forgotten", keepttl=True)
    await (await hands()).take_one()
    with pytest.raises(DuplicateJob) as refused:
        await put(queue, "a", payload={"n": 2}, idempotency_key="k")
    assert refused.value.details == {"job_id": "a"}
    [again] = await put(queue, "a", payload={"n": 1}, idempotency_key="k")
    assert again == await queue.get("a")
    assert (again.status, again.payload) == (JobState.ACTIVE, {"n": 1})


async def test_a_repeated_submit_is_no_reason_to_be_full(queue: JobQueue):
    from attrs import evolve

    async with JobQueue.connect(settings=evolve(queue.settings, max_pending=2)) as small:
        await put(small, "a", "b")
        await put(small, "a", "b")
        with pytest.raises(QueueFull, match="2 jobs wait already"):
            await put(small, "c")


async def test_a_refusal_among_many_keeps_the_others(queue: JobQueue):
    """Those after the first round trip as well."""
    await put(queue, "taken")
    specs = [JobSpec("echo", {"other": 1}, id="taken"), *(JobSpec("echo", id=f"j{i}") for i in range(520))]
    with pytest.raises(DuplicateJob):
        await queue.submit_many(specs)
    assert (await queue.counts())[JobState.PENDING] == 521


async def test_what_submit_gives_is_what_the_queue_has(queue: JobQueue):
    given = await queue.submit_many(
        [
            JobSpec("echo", {"a": [1, {"b": "ü"}]}),
            JobSpec("letters", "text", type="t", priority=7, labels={"l": "v"}, customer_id="c", timeout_s=2.5),
            JobSpec("letters", None, requirements={"models": ["m"], "hardware": {"ram_mb": 1}}, max_attempts=9),
        ]
    )
    assert given == [await queue.get(job.id) for job in given]


async def test_submit_gives_times_in_utc_as_the_queue_does(queue: JobQueue):
    at = datetime(2040, 1, 31, 18, tzinfo=timezone(timedelta(hours=5)))
    given = await queue.submit(JobSpec("echo", start_at=at, deadline_at=at))
    kept = await queue.get(given.id)
    assert str(given.start_at) == str(kept.start_at) == "2040-01-31 13:00:00+00:00"
    assert str(given.deadline_at) == str(kept.deadline_at) == str(kept.start_at)


async def test_the_same_retry_is_made_once(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    await queue.cancel("a")
    await queue.retry("a")
    assert (await queue.retry("a")).status is JobState.PENDING
    assert (await names_of_events(queue, "a")).count("revived") == 1
    assert await (await hands()).ids(1) == ["a"]
    assert (await queue.retry("a")).status is JobState.ACTIVE
    assert (await names_of_events(queue, "a")).count("revived") == 1


async def test_the_same_retry_is_made_once_though_the_new_run_waits_for_its_next_attempt(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    await queue.cancel("a")
    await queue.retry("a")
    hand = await hands()
    await hand.finish(await hand.take_one(), "retry", delay_s=60.0)
    assert (await queue.retry("a")).status is JobState.SCHEDULED
    assert (await names_of_events(queue, "a")).count("revived") == 1


async def test_a_renewal_that_is_repeated_adds_no_text_twice(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    first = Lease("a", claimed.token, text="one ", text_at=0)
    second = Lease("a", claimed.token, text="two", text_at=4)
    for lease in (first, first, second, second):
        await hand.consumer.renew([lease])
    key = queue.keys.job_text("a")
    assert await queue.client.get(key) == "one two"
    assert 0 < await queue.client.pttl(key) <= 600_000


async def test_text_that_comes_again_together_with_what_followed_it_goes_on(queue: JobQueue, hands: Hands):
    """The reply to a renewal was lost: its piece comes again, longer by what the job put out meanwhile."""
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    for text, text_at in (("zwei ", 0), ("für", 5), ("für alle", 5), ("alle ", 10), ("drei", 15)):
        await hand.consumer.renew([Lease("a", claimed.token, text=text, text_at=text_at)])
    assert await queue.client.get(queue.keys.job_text("a")) == "zwei für alle drei"


async def test_no_more_than_a_mib_of_text_is_kept_however_it_comes(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    claimed = await hand.take_one()
    key, most = queue.keys.job_text("a"), 2**20

    async def kept(length: int, text_at: int) -> int:
        await hand.consumer.renew([Lease("a", claimed.token, text="x" * length, text_at=text_at)])
        return int(await queue.client.strlen(key))

    assert await kept(most + 1, 0) == 0
    assert await kept(1, most + 1) == 0
    assert await kept(most, 0) == most
    assert await kept(2, most - 1) == most
    assert await kept(1, most) == most
