"""Why a job is where it is: the true reason each time, its place, and about how long it will take."""

import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import pytest

from emp_core.errors import JobNotFound
from emp_core.jobs.codec import encode_error
from emp_core.jobs.matching import Capabilities, Match, ModelOffer, ServiceOffer, match
from emp_core.jobs.model import JobError, JobSpec
from emp_core.jobs.requirements import Requirement
from emp_core.queue import estimate
from emp_core.queue.explain import Explanation
from emp_core.queue.queue import JobQueue
from emp_core.queue.workers import encode_capabilities

from .hands import SECOND, Hand, Hands, put


async def offering(hands: Hands, name: str, **offered: Any) -> Hand:
    """A worker that says what it offers and serves the lanes that go with it, as every worker does."""
    settings = {f"customers_{what}": offered[what] for what in ("allow", "deny") if what in offered}
    hand = hands.unregistered(name=name, **settings, **offered.pop("settings", {}))
    service = offered.pop("service", None) or ServiceOffer("EchoConnector", slots=offered.pop("slots", 1))
    capabilities = Capabilities(name, "m", services={"echo": service}, **offered)
    _, lanes = await hand.consumer.lanes()
    verdicts = {lane: match(Requirement.from_json(text), capabilities) for lane, text in lanes.items()}
    serves: dict[str, float | None] = {
        lane: verdict.penalty_ms for lane, verdict in verdicts.items() if isinstance(verdict, Match)
    }
    code, _, _ = await hand.consumer.set_lanes(serves, encode_capabilities(capabilities), reset=True)
    assert code == 1
    return hand


def having(*loaded: str, cold: tuple[str, ...] = ()) -> ServiceOffer:
    """A service with these models in memory, and these on its disk."""
    offers = {name: ModelOffer(loaded=True) for name in loaded} | {name: ModelOffer(load_ms=60_000.0) for name in cold}
    return ServiceOffer("EchoConnector", models=offers)


async def explained(queue: JobQueue, job_id: str) -> Explanation:
    found = await queue.explain(job_id)
    assert found.job_id == job_id
    assert found.as_dict()["summary"] == found.summary
    return found


async def run_for(queue: JobQueue, hand: Hand, seconds: float) -> None:
    """Let a job of the service have run so long."""
    [job] = await put(queue, f"ran-{seconds}", priority=100)
    await hand.finish(await hand.take_one())
    started = int(await queue.client.hget(queue.keys.job(job.id), "finished_at")) - round(seconds * SECOND)
    await queue.client.hset(queue.keys.job(job.id), "started_at", started)


# -- what nobody can run ---------------------------------------------------------------------------------------------


async def test_nobody_is_alive(queue: JobQueue):
    await put(queue, "a", "b")
    found = await explained(queue, "b")
    assert (found.status, found.summary, found.workers) == (
        "pending",
        "no live worker can run it: no worker is alive",
        (),
    )
    assert (found.position, found.estimate_s, found.basis) == (2, None, None)


async def test_nobody_serves_it(queue: JobQueue, hands: Hands):
    await queue.submit(JobSpec("paint", id="a"))
    await offering(hands, "w1")
    found = await explained(queue, "a")
    assert found.summary == "no live worker can run it: w1: does not serve paint (it serves echo)"
    [one] = found.workers
    assert (one.worker_id, one.can_run, one.reasons) == ("w1", False, ("does not serve paint (it serves echo)",))


async def test_it_waits_for_a_model(queue: JobQueue, hands: Hands):
    await put(queue, "a", requirements={"models": ["fox", "hen"]})
    await offering(hands, "w1", service=having("hen"))
    assert (await explained(queue, "a")).summary == "no live worker can run it: w1: has no model fox"


async def test_it_waits_for_memory(queue: JobQueue, hands: Hands):
    await put(queue, "a", requirements={"hardware": {"gpu_memory_mb": 24_000}})
    await offering(hands, "w1", resources={"gpu_memory_mb": 16_000})
    await offering(hands, "w2")
    assert (await explained(queue, "a")).summary == (
        "no live worker can run it: w1: gpu_memory_mb is 16000, the job wants 24000; "
        "w2: gpu_memory_mb is not known, the job wants 24000"
    )


async def test_every_service_that_could_is_withdrawn(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    await offering(hands, "w1", service=ServiceOffer("EchoConnector", withdrawn="not reachable"))
    assert (await explained(queue, "a")).summary == "no live worker can run it: w1: echo is withdrawn: not reachable"


async def test_no_worker_takes_the_jobs_of_its_customer(queue: JobQueue, hands: Hands):
    await put(queue, "a", customer_id="a")
    await put(queue, "n")
    await offering(hands, "w1", allow=("b",))
    await offering(hands, "w2", deny=("a",), allow=("b", "a"))
    assert (await explained(queue, "a")).summary == (
        "no live worker can run it: w1: takes only other customers than a; w2: refuses customer a"
    )
    assert (await explained(queue, "n")).summary == (
        "no live worker can run it: w1: takes only jobs of certain customers; w2: takes only jobs of certain customers"
    )


async def test_a_free_worker_that_refuses_the_customer_is_no_free_worker(queue: JobQueue, hands: Hands):
    await put(queue, "other", "a", customer_id="a")
    busy = await offering(hands, "busy")
    await busy.take_one()
    await offering(hands, "free", deny=("a",))
    found = await explained(queue, "a")
    assert found.summary == "every slot that could run it is busy (1 on 1 worker)"
    assert [(one.worker_id, one.can_run, one.reasons) for one in found.workers] == [
        ("busy", True, ()),
        ("free", False, ("refuses customer a",)),
    ]


# -- what waits although somebody could run it -----------------------------------------------------------------------


async def test_its_customer_is_at_its_cap(queue: JobQueue, hands: Hands):
    await put(queue, "a1", "a2", "a3", customer_id="a")
    hand = await offering(hands, "w1", slots=4, settings={"customer_cap": 2})
    assert await hand.ids(4) == ["a1", "a2"]
    found = await explained(queue, "a3")
    assert found.summary == (
        "customer a is at its cap: 2 of its jobs run now, and this one waits for one of them to end"
    )
    assert found.position == 1


async def test_a_worker_is_free(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    await offering(hands, "w1")
    found = await explained(queue, "a")
    assert (found.summary, found.estimate_s, found.basis) == (
        "a worker is free for it: it begins at once",
        0.0,
        "a free slot",
    )


async def test_jobs_of_other_services_do_not_come_before_it(queue: JobQueue, hands: Hands):
    """However long they have waited: its workers do not run them."""
    await queue.submit_many(JobSpec("paint") for _ in range(20))
    await put(queue, "a")
    await offering(hands, "w1")
    found = await explained(queue, "a")
    assert (found.position, found.estimate_s) == (1, 0.0)


async def test_every_slot_is_busy_and_the_wait_is_estimated_from_recent_jobs(queue: JobQueue, hands: Hands):
    await put(queue, "r1", "r2", "a", "b", "c")
    hand = await offering(hands, "w1", slots=2)
    assert await hand.ids(2) == ["r1", "r2"]
    unknown = await explained(queue, "c")
    assert (unknown.estimate_s, unknown.basis) == (None, None)
    await run_for(queue, hand, 8.0)
    await run_for(queue, hand, 4.0)
    found = await explained(queue, "c")
    assert found.summary == "every slot that could run it is busy (2 on 1 worker), and 2 waiting jobs come before it"
    assert (found.position, found.estimate_s) == (3, 9.0)
    assert found.basis == "2 recent echo jobs took 6.0 s each, on 2 slots"
    [one] = found.workers
    assert (one.busy, one.slots, one.can_run, one.penalty_ms) == (2, 2, True, 0.0)


async def test_more_wait_before_it_than_slots_are_free(queue: JobQueue, hands: Hands):
    await put(queue, "a", "b", "c")
    hand = await offering(hands, "w1", slots=2)
    await run_for(queue, hand, 4.0)
    found = await explained(queue, "c")
    assert found.summary == "2 slots that could run it are free, and 2 waiting jobs come before it"
    assert (found.estimate_s, found.basis) == (2.0, "1 recent echo job took 4.0 s, on 2 slots")


async def test_the_single_job_of_a_customer_has_the_place_that_turns_give_it(queue: JobQueue, hands: Hands):
    await queue.submit_many(JobSpec("echo", customer_id="many") for _ in range(30))
    await put(queue, "s1", "s2", customer_id="single")
    await offering(hands, "w1")
    assert [(await explained(queue, one)).position for one in ("s1", "s2")] == [2, 4]


async def test_lanes_that_the_same_worker_serves_are_in_one_order(queue: JobQueue, hands: Hands):
    await put(queue, "a", requirements={"models": ["a"]})
    await put(queue, "b", requirements={"models": ["b"]})
    await put(queue, "c", requirements={"models": ["a"]}, priority=90)
    await put(queue, "d", requirements={"models": ["b"]})
    await offering(hands, "w1", service=having("a", "b"))
    assert [(await explained(queue, one)).position for one in "abcd"] == [2, 3, 1, 4]


async def test_it_is_left_to_a_busy_worker_that_has_its_model_loaded(queue: JobQueue, hands: Hands):
    model = {"models": ["fox"]}
    await put(queue, "first", "a", requirements=model)
    warm = await offering(hands, "warm", service=having("fox"))
    await offering(hands, "cold", service=having(cold=("fox",)))
    await warm.take_one()
    found = await explained(queue, "a")
    assert found.summary == "it is left for a moment to warm, which is busy and would be ready for it sooner"
    assert found.estimate_s is not None
    assert 10 < found.estimate_s <= 18
    assert found.basis == "how long a job is left to a worker that is ready sooner"
    assert {one.worker_id: one.penalty_ms for one in found.workers} == {"warm": 0.0, "cold": 60_000.0}


async def test_it_is_left_to_a_warmer_worker_for_no_longer_than_claiming_leaves_it(queue: JobQueue, hands: Hands):
    model = {"models": ["fox"]}
    await put(queue, "first", "a", requirements=model)
    warm = await offering(hands, "warm", service=having("fox"))
    cold = await offering(hands, "cold", service=having(cold=("fox",)))
    await warm.take_one()
    waited = int(await queue.client.hget(queue.keys.job("a"), "created_at")) - 19 * SECOND
    await queue.client.hset(queue.keys.job("a"), "created_at", waited)
    assert (await explained(queue, "a")).summary == "a worker is free for it: it begins at once"
    assert await cold.ids(1) == ["a"]


async def test_it_is_not_left_to_a_warmer_worker_that_refuses_its_customer(queue: JobQueue, hands: Hands):
    await put(queue, "a", customer_id="acme", requirements={"models": ["fox"]})
    await offering(hands, "warm", service=having("fox"), deny=("acme",))
    cold = await offering(hands, "cold", service=having(cold=("fox",)))
    assert (await explained(queue, "a")).summary == "a worker is free for it: it begins at once"
    assert await cold.ids(1) == ["a"]


async def test_a_cold_worker_that_is_the_only_one_takes_it_at_once(queue: JobQueue, hands: Hands):
    await put(queue, "a", requirements={"models": ["fox"]})
    await offering(hands, "cold", service=having(cold=("fox",)))
    assert (await explained(queue, "a")).summary == "a worker is free for it: it begins at once"


def test_jobs_are_left_to_warmer_workers_for_as_long_as_the_script_says():
    lua = files("emp_core.queue").joinpath("lua/claim.lua").read_text()
    share, most = (re.search(rf"^local {name} = (\S+)$", lua, re.MULTILINE) for name in ("COLD_SHARE", "COLD_MAX_US"))
    assert share is not None
    assert most is not None
    assert (float(share[1]), float(most[1]) / SECOND) == (estimate.COLD_SHARE, estimate.COLD_MAX_S)


# -- what does not wait in a line ------------------------------------------------------------------------------------


async def test_it_is_scheduled(queue: JobQueue):
    await put(queue, "a", start_at=datetime(2099, 1, 31, 18, 0, tzinfo=UTC))
    found = await explained(queue, "a")
    assert (found.status, found.position) == ("scheduled", None)
    assert found.summary == "it was submitted to begin at 2099-01-31 18:00:00 UTC"


async def test_it_waits_for_its_next_attempt(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await offering(hands, "w1")
    error = encode_error(JobError("job_failed", "node 7 failed", True))
    await hand.finish(await hand.take_one(), "retry", delay_s=600.0, error=error)
    soon = datetime.now(UTC) + timedelta(minutes=10)
    found = await explained(queue, "a")
    assert found.status == "scheduled"
    assert found.summary.startswith("attempt 1 failed (job_failed: node 7 failed); the next one may begin at ")
    told = datetime.strptime(found.summary[-23:], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert abs(told - soon) < timedelta(seconds=10)


async def test_it_runs(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await offering(hands, "w1")
    await hand.take_one()
    found = await explained(queue, "a")
    assert re.fullmatch(r"it runs on w1 since \d\d:\d\d:\d\d UTC, attempt 1, 0 % done", found.summary)
    await queue.cancel("a")
    assert (await explained(queue, "a")).summary.endswith("it was asked to stop")


@pytest.mark.parametrize(
    ("decision", "told", "summary"),
    [
        ("completed", {}, "it is completed"),
        ("failed", {"error": encode_error(JobError("job_failed", "node 7 failed"))}, "it is failed: node 7 failed"),
        ("cancelled", {}, "it is cancelled"),
    ],
)
async def test_it_is_over(queue: JobQueue, hands: Hands, decision: str, told: dict[str, str], summary: str):
    await put(queue, "a")
    hand = await offering(hands, "w1")
    await hand.finish(await hand.take_one(), decision, **told)
    found = await explained(queue, "a")
    assert (found.status, found.summary, found.position) == (decision, summary, None)


async def test_there_is_no_such_job(queue: JobQueue):
    with pytest.raises(JobNotFound):
        await queue.explain("a")
