"""The scripts on a real Redis against a model of what they should do: whatever happens in whatever order, both agree."""

import math
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, precondition, rule, run_state_machine_as_test
from redis import Redis

from emp_core.queue.consumer import Finish, Lease

from .queue_machine import AWAY, BACK, LANES, SERVED, QueueMachine
from .queue_model import ModelJob

EXAMPLES = int(os.environ.get("EMP_MODEL_EXAMPLES", "30"))
"""More of them find more; the default is for every run of the tests."""
STEPS = 50
HOUR = timedelta(hours=1)
SECOND_US = 1_000_000


class AllThatHappens(QueueMachine):
    """Everything that may happen to jobs."""

    held = Bundle("held")
    """Leases: ids and tokens, current or not."""

    @initialize()
    def register_all(self) -> None:
        for name in SERVED:
            self.register(name)
            self.claim(name, 3, takes=True, hears=0, again=False)

    @rule(
        target=held,
        lane=st.sampled_from(["one", *LANES]),
        customer=st.sampled_from(["a", "a", "a", None, "b:c"]),
        priority=st.sampled_from([50, 50, 0, 100]),
        later=st.sampled_from([False] * 5 + [True]),
        deadline=st.booleans(),
        max_attempts=st.integers(1, 4),
        count=st.integers(1, 4),
    )
    def submit(
        self, lane: str, customer: str | None, priority: int, later: bool, deadline: bool, max_attempts: int, count: int
    ) -> Any:
        self.script = "submit"
        leases = []
        for _ in range(count):
            self.numbers += 1
            job_id = f"j{self.numbers:03}"
            spec = evolve(
                LANES[lane],
                id=job_id,
                customer_id=customer,
                priority=priority,
                start_at=datetime.now(UTC) + HOUR if later else None,
                deadline_at=datetime.now(UTC) + 2 * HOUR if deadline else None,
                max_attempts=max_attempts,
            )
            idle = self.idle()
            self.call(self.queue.submit, spec)
            told = self.client.hgetall(self.queue.keys.job(job_id))
            came = max(int(told["created_at"]), int(told.get("start_at", 0)))
            assert int(told["arrival"]) == came - priority * round(self.settings.priority_step_s * SECOND_US)
            state = "scheduled" if later else "pending"
            job = ModelJob(job_id, lane, customer or "", int(told["arrival"]), came, state, max_attempts, deadline)
            taker = None if later else self.model.taker(lane, job.customer, idle)
            if taker is None:
                self.model.add(job)
            else:
                assert told["worker_id"] == taker.name
                leases.append(self.model.hand_over(job, taker))
                assert (taker.name in self.idle()) == (taker.room > 0)
        return multiple(*leases)

    @rule(
        target=held,
        worker=st.sampled_from(list(SERVED)),
        slots=st.sampled_from([5, 3, 1]),
        takes=st.sampled_from([True, True, False]),
        hears=st.integers(0, 3),
        again=st.booleans(),
    )
    def claim(self, worker: str, slots: int, takes: bool, hears: int, again: bool) -> Any:
        self.script = "claim"
        model = self.model.workers[worker]
        if takes and hears and model.unheard:
            model.heard = model.unheard[:hears][-1]
        # Workers that were woken count as idle for a moment: how long this machine took must not decide.
        self.client.delete(self.key("woken"))
        idle = set(self.idle()) - {worker}
        heard = model.heard if takes else None
        room = self.model.slots(model, slots, heard or "")
        limit = min(room, max(1, math.ceil(len(self.model.in_state("pending")) / (len(idle) + 1))))
        token = secrets.token_hex(4)
        groups = [(slots, ("one", "two"))]
        claim = self.call(self.consumers[worker].claim, token, groups, "m", handed=heard)
        assert claim.registered
        ids = [claimed.job.id for claimed in claim.jobs]
        now = int(self.client.hgetall(self.queue.keys.job(ids[0]))["started_at"]) if ids else 0
        self.model.claims(model, token, heard or "", room - len(ids) if takes else 0)
        assert ids == self.model.claim(model, limit, now, token)
        assert worker not in self.idle() or len(ids) < room
        assert claim.left == len(self.model.in_state("pending"))
        assert [one.job.attempt for one in claim.jobs] == [self.model.jobs[one].attempt for one in ids]
        if again:
            assert self.call(self.consumers[worker].claim, token, groups, "m", handed=heard).jobs == claim.jobs
        return multiple(*((job_id, token) for job_id in ids))

    @rule(
        lease=held,
        decision=st.sampled_from(["completed", "failed", "cancelled", "retry", "retry", "release"]),
        delayed=st.booleans(),
        away=st.booleans(),
        again=st.booleans(),
    )
    def finish(self, lease: tuple[str, str], decision: str, delayed: bool, away: bool, again: bool) -> None:
        self.script = "finish"
        job_id, token = lease
        job = self.model.jobs[job_id]
        delayed, away = delayed and decision == "retry", away and decision == "retry" and job.lane in AWAY
        where = {"lane": AWAY[job.lane].lane, "requirement": AWAY[job.lane].as_json()} if away else {}
        outcome = Finish(job_id, token, decision, delay_s=3600 if delayed else 0, **where)
        [told] = self.call(self.consumers["first"].finish, [outcome])
        assert told == self.model.finish(job, token, decision, delayed=delayed, lane=where.get("lane"))
        if again:
            [repeated] = self.call(self.consumers["first"].finish, [outcome])
            assert repeated == (told if told[0] == -1 else (0, told[1]))

    @rule(lease=held)
    def renew(self, lease: tuple[str, str]) -> None:
        self.script = "renew"
        job_id, token = lease
        job = self.model.jobs[job_id]
        renewal = self.call(self.consumers["first"].renew, [Lease(job_id, token, 10.0)])
        holds = job.status == "active" and job.token == token
        assert renewal.lost == (set() if holds else {job_id})
        assert renewal.cancelled == ({job_id} if holds and job.cancel else set())
        job.lease_ended = job.lease_ended and not holds

    @precondition(lambda self: self.model.handed)
    @rule(data=st.data(), again=st.booleans())
    def acknowledge(self, data: st.DataObject, again: bool) -> None:
        lease = data.draw(st.sampled_from(list(self.model.handed)))
        for _ in range(1 + again):
            assert self.client.zrem(self.key("handed"), " ".join(lease)) == self.model.acknowledge(lease)

    @precondition(lambda self: self.model.handed)
    @rule(data=st.data(), sweep=st.booleans())
    def lapse(self, data: st.DataObject, sweep: bool) -> None:
        lease = data.draw(st.sampled_from(list(self.model.handed)))
        self.client.zadd(self.key("handed"), {" ".join(lease): 1}, xx=True)
        self.model.handed[lease] = True
        if sweep:
            self.sweep("first")

    @rule()
    def let_empty_lanes_go(self) -> None:
        lanes: Any = self.client.zrange(self.key("lanes_empty"), 0, -1)
        self.client.zadd(self.key("lanes_empty"), dict.fromkeys(["none", *lanes], 1), xx=True)
        self.sweep("first")
        assert not self.client.exists(self.key("lanes_empty"))
        # The workers hear that they are gone, and say again that they serve them once they are back.
        for name, served in SERVED.items():
            self.call(self.consumers[name].set_lanes, dict.fromkeys(served, 0.0), [], reset=False)

    @rule(worker=st.sampled_from(list(SERVED)))
    def end_and_begin_again(self, worker: str) -> None:
        self.script = "retire"
        self.call(self.consumers[worker].retire)
        self.model.retire(self.model.workers[worker])
        self.register(worker)

    @precondition(lambda self: self.model.in_state("active"))
    @rule(data=st.data(), sweep=st.booleans())
    def lose(self, data: st.DataObject, sweep: bool) -> None:
        job = data.draw(st.sampled_from(self.model.in_state("active")))
        self.client.zadd(self.key("active"), {job.id: 1}, xx=True)
        job.lease_ended = True
        if sweep:
            self.sweep("first")

    @precondition(lambda self: self.model.in_state("scheduled"))
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.model.in_state("scheduled")))
        # Its time has come: as if it had been asked for when it was submitted.
        told: Any = self.client.hgetall(self.queue.keys.job(job.id))
        if early_us := job.came - int(told["created_at"]):
            job.came, job.arrival = job.came - early_us, job.arrival - early_us
            changed: Any = {"start_at": job.came, "arrival": job.arrival}
            self.client.hset(self.queue.keys.job(job.id), mapping=changed)
        self.client.zadd(self.key("scheduled"), {job.id: 1}, xx=True)
        job.due = True
        self.sweep("first")

    @precondition(lambda self: any(job.has_deadline for job in self.model.in_state("pending", "scheduled")))
    @rule(data=st.data())
    def pass_deadline(self, data: st.DataObject) -> None:
        waiting = [job for job in self.model.in_state("pending", "scheduled") if job.has_deadline]
        job = data.draw(st.sampled_from(waiting))
        self.client.zadd(self.key("deadlines"), {job.id: 1}, xx=True)
        job.late = True
        self.sweep("first")

    @rule(worker=st.just("first"))
    def sweep(self, worker: str) -> None:
        self.script = "sweep"
        assert self.call(self.houses[worker].sweep, rescue=True).is_keeper
        self.model.sweep()

    @precondition(lambda self: self.model.in_state("pending", "scheduled", "active"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.script = "cancel"
        job = data.draw(st.sampled_from(self.model.in_state("pending", "scheduled", "active")))
        self.call(self.queue.cancel, job.id)
        self.model.cancel(job)

    @precondition(lambda self: self.model.in_state("failed", "cancelled"))
    @rule(data=st.data())
    def revive(self, data: st.DataObject) -> None:
        self.script = "retry"
        job = data.draw(st.sampled_from(self.model.in_state("failed", "cancelled")))
        self.call(self.queue.retry, job.id)
        # One that was not due yet waits from now on.
        began = int(self.client.hget(self.queue.keys.job(job.id), "start_at") or job.came)
        self.model.revive(job, BACK.get(job.lane, job.lane), early=job.came - began)

    @precondition(lambda self: self.model.in_state("pending", "scheduled"))
    @rule(data=st.data(), priority=st.sampled_from([0, 50, 99]))
    def prioritize(self, data: st.DataObject, priority: int) -> None:
        self.script = "reprioritize"
        job = data.draw(st.sampled_from(self.model.in_state("pending", "scheduled")))
        self.call(self.queue.set_priority, job.id, priority)
        step_us = round(self.settings.priority_step_s * SECOND_US)
        self.model.prioritize(job, job.came - priority * step_us)

    @rule()
    def audit(self) -> None:
        """Finds nothing to mend."""
        self.script = "audit"
        assert self.call(self.mended) == []

    async def mended(self) -> list[str]:
        from emp_core.queue.scripts import load_script

        audit = load_script("audit").bound(self.queue.keys, {"events_max": self.settings.events_max})
        found: list[str] = await audit(self.queue.client, {}, list(self.model.jobs))
        return found


@pytest.fixture
def machine(redis_url: str, tmp_path: Path) -> Iterator[type[AllThatHappens]]:
    with (
        start_blocking_portal("asyncio") as portal,
        Redis.from_url(redis_url, decode_responses=True, protocol=2) as client,
    ):
        yield type(
            "Machine", (AllThatHappens,), {"url": redis_url, "folder": tmp_path, "portal": portal, "client": client}
        )


def test_the_scripts_do_what_the_model_does(machine: type[AllThatHappens]):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="EMP_MODEL_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
