"""Whether the queue gets on: told by its jobs, whatever Redis answers to a ping."""

from emp_core.queue.queue import JobQueue

from .hands import SECOND, Hands, end_lease, make_due, put


async def has_waited(queue: JobQueue, job_id: str, seconds: int) -> None:
    """Let a job have come so long ago."""
    now, _ = await queue.client.time()
    await queue.client.hset(queue.keys.job(job_id), "created_at", (now - seconds) * SECOND)


async def test_nothing_to_do_is_no_problem(queue: JobQueue):
    health = await queue.health()
    assert (health.waiting, health.running, health.workers) == (0, 0, 0)
    assert (health.oldest_waiting, health.oldest_running, health.problems) == (None, None, ())


async def test_the_oldest_are_told_with_their_ages(queue: JobQueue, hands: Hands):
    await put(queue, "r1", "r2", "w1", "w2")
    hand = await hands()
    assert await hand.ids(2) == ["r1", "r2"]
    now, _ = await queue.client.time()
    await queue.client.hset(queue.keys.job("r2"), "started_at", (now - 3600) * SECOND)
    await has_waited(queue, "w2", 20)
    health = await queue.health()
    assert (health.waiting, health.running, health.workers) == (2, 2, 1)
    assert health.oldest_waiting is not None
    assert health.oldest_running is not None
    assert (health.oldest_waiting.job_id, health.oldest_running.job_id) == ("w2", "r2")
    assert 20 <= health.oldest_waiting.seconds < 30
    assert 3600 <= health.oldest_running.seconds < 3610
    assert health.problems == ()


async def test_a_job_that_nobody_can_run_is_a_problem_once_it_has_waited(queue: JobQueue):
    await put(queue, "a")
    assert (await queue.health()).problems == ()
    await has_waited(queue, "a", 90)
    [problem] = (await queue.health()).problems
    assert problem.startswith("job a has waited for 9")
    assert problem.endswith("no live worker can run it: no worker is alive")


async def test_a_free_worker_that_takes_nothing_is_a_problem(queue: JobQueue, hands: Hands):
    """As one does whose connection died without a word."""
    await hands()
    await put(queue, "a")
    await has_waited(queue, "a", 90)
    [problem] = (await queue.health()).problems
    assert problem.endswith("a worker is free for it: it begins at once")


async def test_a_long_wait_for_a_busy_worker_is_no_problem(queue: JobQueue, hands: Hands):
    await put(queue, "running", "a")
    assert await (await hands()).ids(1) == ["running"]
    await has_waited(queue, "a", 90)
    assert (await queue.health()).problems == ()


async def test_a_lease_that_nobody_ends_and_a_start_that_nobody_sees_are_problems(queue: JobQueue, hands: Hands):
    from datetime import UTC, datetime, timedelta

    await put(queue, "a")
    await put(queue, "later", start_at=datetime.now(UTC) + timedelta(hours=1))
    await (await hands()).take_one()
    await end_lease(queue, "a")
    assert (await queue.health()).problems == ()  # a second is nothing: somebody will come by
    await make_due(queue, "active", "a")
    await make_due(queue, "scheduled", "later")
    lease, start = (await queue.health()).problems
    assert lease.startswith("a lease ended ")
    assert start.startswith("a job was due ")
    assert lease.endswith("no worker keeps house")
