"""The place that is told of a waiting job is the place that it has: claims go on to take the jobs in this order."""

import random
from collections.abc import Sequence
from itertools import groupby

import pytest

from emp_core.jobs.matching import Capabilities, ServiceOffer
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue import estimate, turns
from emp_core.queue.estimate import Place, place_of
from emp_core.queue.queue import JobQueue
from emp_core.queue.turns import Line, claims_before
from emp_core.queue.workers import encode_capabilities

from .hands import SECOND, Hand, Hands

HOUR = 3600.0 * SECOND


async def serving(hands: Hands, penalties: dict[str, float | None], deny: tuple[str, ...] = ()) -> Hand:
    """A worker of these lanes."""
    hand = hands.unregistered(customers_deny=deny)
    offered = Capabilities(hand.name, "m", services={"echo": ServiceOffer("EchoConnector")}, deny=deny)
    assert (await hand.consumer.set_lanes(penalties, encode_capabilities(offered), reset=True))[0] == 1
    return hand


async def places(queue: JobQueue, ids: Sequence[str]) -> dict[str, int]:
    """The places of waiting jobs."""
    workers = await queue.workers()
    found: dict[str, int] = {}
    for job_id in ids:
        place = await place_of(queue._open.calls, await queue.get(job_id), workers)
        assert place is not None
        assert not place.is_least
        found[job_id] = place.number
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("priorities", [(50,), (50, 100), range(101)])
async def test_the_places_of_all_jobs_are_those_in_which_they_are_claimed(
    queue: JobQueue, hands: Hands, seed: int, priorities: Sequence[int]
):
    rng = random.Random(f"{seed} {list(priorities)}")
    customers = [f"c{n}" for n in range(rng.randint(1, 5))] + [None]
    models = [[f"m{n}"] for n in range(rng.randint(1, 3))]
    specs = [
        JobSpec(
            "echo",
            customer_id=rng.choice(customers[: rng.randint(1, len(customers))]),
            priority=rng.choice(priorities),
            requirements={"models": rng.choice(models)},
        )
        for _ in range(60)
    ]
    jobs = [await queue.submit(spec) for spec in specs[:40]]
    lanes = sorted({job.lane for job in jobs})
    hand = await serving(hands, {lane: rng.choice([0.0, 0.0, 20_000.0]) for lane in lanes})
    for spec in specs[40:]:
        jobs.append(await queue.submit(spec))
        if rng.random() < 0.7:
            await hand.ids(1)
    waiting = [job.id for job in await queue.jobs([JobState.PENDING]) if job.lane in lanes]
    told = await places(queue, waiting)
    order: list[str] = []
    while len(order) < len(waiting):
        order += await hand.ids(1)
    assert told == {job_id: place for place, job_id in enumerate(order, 1)}


async def test_a_single_job_stands_behind_all_that_have_a_larger_head_start(queue: JobQueue, hands: Hands):
    others = [
        JobSpec("echo", customer_id=customer, priority=100, requirements={"capabilities": {"x": lane}})
        for customer in ("big", "two")
        for lane in (1, 2)
        for _ in range(20)
    ]
    jobs = await queue.submit_many(others)
    hand = await serving(hands, {job.lane: 0.0 for job in jobs})
    assert len(await hand.ids(10)) == 10
    small = await queue.submit(JobSpec("echo", customer_id="small", priority=50, requirements=others[0].requirements))
    assert await places(queue, [small.id]) == {small.id: 71}
    claimed = [job_id for _ in range(71) for job_id in await hand.ids(1)]
    assert claimed[-1] == small.id


async def test_jobs_of_customers_whom_its_workers_refuse_do_not_come_before_it(queue: JobQueue, hands: Hands):
    await queue.submit_many(JobSpec("echo", customer_id="evil", priority=100) for _ in range(5))
    job = await queue.submit(JobSpec("echo", customer_id="acme"))
    await serving(hands, {"echo": 0.0}, deny=("evil",))
    assert await places(queue, [job.id]) == {job.id: 1}


async def test_of_long_lines_some_jobs_are_read_and_the_place_is_near(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(estimate, "_READ_MOST", 40)
    monkeypatch.setattr(estimate, "_READ_OF_OWN", 10)
    rng = random.Random(7)
    await queue.submit_many(
        JobSpec("echo", customer_id=f"c{n % 3}", priority=rng.choice([0, 50, 100])) for n in range(600)
    )
    job = await queue.submit(JobSpec("echo", customer_id="small", priority=50))
    hand = await serving(hands, {"echo": 0.0})
    told = (await places(queue, [job.id]))[job.id]
    assert told == pytest.approx((await hand.ids(600)).index(job.id) + 1, abs=40)


async def test_where_more_lines_wait_than_are_looked_at_it_is_said_to_be_the_least(
    queue: JobQueue, hands: Hands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(estimate, "_LINES_MOST", 4)
    await queue.submit_many(JobSpec("echo", customer_id=f"c{n}") for n in range(6))
    job = await queue.submit(JobSpec("echo", customer_id="small"))
    await serving(hands, {"echo": 0.0})
    workers = await queue.workers()
    assert await place_of(queue._open.calls, await queue.get(job.id), workers) == Place(5, is_least=True)
    told = await queue.explain(job.id)
    assert (told.position, told.position_is_least, told.estimate_s) == (5, True, None)
    assert told.summary == "1 slot that could run it is free, and at least 4 waiting jobs come before it"


# -- the rule itself -------------------------------------------------------------------------------------------------


def a_line(customer: str, turn_s: float, *head_starts_s: float) -> Line:
    """A line whose first job has this turn, and those after it these head starts."""
    runs: list[tuple[int, float]] = []
    for head_start_s, run in groupby(head_starts_s):
        begins = runs[-1][0] if runs else 1
        runs.append((begins + len([*run]), head_start_s * SECOND))
    return Line(customer, turn_s * SECOND, length=1 + len(head_starts_s), head_starts=runs)


def test_a_larger_head_start_counts_for_as_long_as_it_is():
    """At one claim in a second, the head start of ten seconds is worth ten jobs."""
    others = [a_line("big", 0.0, *[15.0] * 100)]
    own = a_line("small", 0.0)
    places = [claims_before(own, 0, others, now_us=5.0 * SECOND, pace_us=pace * SECOND) for pace in (0.0, 1.0, 100.0)]
    assert places == [0, 0, 0], "at the same turn its own is first"
    own = a_line("small", 1.0)
    places = [claims_before(own, 0, others, now_us=5.0 * SECOND, pace_us=pace * SECOND) for pace in (0.0, 1.0, 100.0)]
    assert places == [101, 12, 2]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_not_followed_is_reckoned_as_it_would_have_come(monkeypatch: pytest.MonkeyPatch, seed: int):
    rng = random.Random(seed)

    def some_line(customer: str) -> Line:
        starts = sorted(rng.choices((0.0, HOUR, 2 * HOUR), k=rng.randint(20, 60)), reverse=True)
        return a_line(customer, -starts[0] / SECOND + rng.random(), *(one / SECOND for one in starts[1:]))

    own, *others = (some_line(f"c{n}") for n in range(6))
    rank = rng.randrange(own.length)
    followed = claims_before(own, rank, others, now_us=10.0 * SECOND, others_wait=True)
    monkeypatch.setattr(turns, "_FOLLOWED", 10)
    reckoned = claims_before(own, rank, others, now_us=10.0 * SECOND, others_wait=True)
    assert reckoned == pytest.approx(followed, abs=2 * len(others))
