"""A queue beside a model of it: after whatever happens, both agree."""

import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.from_thread import BlockingPortal
from attrs import evolve
from hypothesis.stateful import RuleBasedStateMachine, invariant

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import TRANSITIONS
from emp_core.queue.consumer import Consumer
from emp_core.queue.housekeeping import Housekeeping
from emp_core.queue.queue import JobQueue
from emp_core.testing.leaks import disowned, take_snapshot
from emp_core.testing.workers import fast_settings

from .queue_model import CAP, MAX_CRASHES, ModelJob, ModelWorker, QueueModel

if TYPE_CHECKING:
    from redis import Redis

LANES: dict[str, JobSpec] = {
    spec.requirement.lane: spec
    for spec in (JobSpec("one"), JobSpec("two"), JobSpec("one", requirements={"models": ["m"]}))
}
AWAY = {lane: evolve(spec.requirement, avoid=("first",)) for lane, spec in LANES.items()}
"""Where a job goes that is to be retried elsewhere."""
BACK = {away.lane: lane for lane, away in AWAY.items()}
SERVED = {"first": [*LANES, *(one.lane for one in AWAY.values())], "second": ["one", AWAY["two"].lane]}
FINAL = ("completed", "failed", "cancelled")


class QueueMachine(RuleBasedStateMachine):
    """One queue and two workers. What may happen to them is for a subclass to say."""

    url: str
    folder: Path
    portal: BlockingPortal
    client: "Redis"

    def __init__(self) -> None:
        super().__init__()
        self.model = QueueModel()
        self.namespace = f"{{model-{secrets.token_hex(6)}}}:"
        self.settings = fast_settings(
            self.url, self.namespace, self.folder, lease_s=3600.0, customer_cap=CAP, max_crashes=MAX_CRASHES
        )
        self.queue = JobQueue.connect(settings=self.settings)
        self.opened = self.portal.wrap_async_context_manager(self.queue)
        self.opened.__enter__()
        self.consumers = {
            name: Consumer(self.queue.client, self.settings, worker_id=name, session=name) for name in SERVED
        }
        self.houses = {name: Housekeeping(self.queue.client, self.settings, worker_id=name) for name in SERVED}
        self.seen: dict[str, str] = {}
        self.script = ""
        self.numbers = 0

    def teardown(self) -> None:
        self.opened.__exit__(None, None, None)
        keys = list(self.client.scan_iter(f"{self.namespace}*", count=1000))
        if keys:
            self.client.unlink(*keys)

    def call(self, call: Any, *arguments: Any, **named: Any) -> Any:
        return self.portal.call(lambda: call(*arguments, **named))

    def key(self, name: str) -> str:
        return self.queue.keys.fixed(name)

    def idle(self) -> list[str]:
        found: Any = self.client.zrange(self.key("idle"), 0, -1)
        return list(found)

    def register(self, name: str) -> None:
        code, _, _ = self.call(self.consumers[name].set_lanes, dict.fromkeys(SERVED[name], 0.0), [], reset=True)
        assert code == 1
        self.model.workers[name] = ModelWorker(name, frozenset(SERVED[name]))

    @invariant()
    def both_agree(self) -> None:
        found = take_snapshot(self.client, self.namespace)
        hashes = found.jobs()
        assert disowned(found) == []
        for job_id, job in self.model.jobs.items():
            told = hashes[job_id]
            assert (told["status"], int(told.get("attempt", 0)), int(told.get("crashes", 0))) == (
                job.status,
                job.attempt,
                job.crashes,
            ), job_id
            self.has_moved_by_the_table(job_id, told["status"])
            self.has_one_outcome(job, found.values.get(f"jobs:{job_id}:events", []))
        assert hashes.keys() == self.model.jobs.keys()
        assert self.lines_of(found) == self.model.lines()
        assert self.turns_of(found) == self.model.turns
        assert self.parked_of(found) == self.model.parked
        assert found.scores("workers:handed").keys() == {" ".join(lease) for lease in self.model.handed}
        assert {name: int(count) for name, count in found.hash("customers:active").items()} == {
            name: count for name, count in self.model.active().items() if name
        }

    def has_moved_by_the_table(self, job_id: str, status: str) -> None:
        before, self.seen[job_id] = self.seen.get(job_id), status
        moves = {(was and was.value, then.value) for was, then in TRANSITIONS.get(self.script, ())}
        assert before == status or (before, status) in moves, f"{self.script} moved {job_id} from {before} to {status}"

    def has_one_outcome(self, job: ModelJob, events: list[str]) -> None:
        outcomes = [json.loads(one)["event"] for one in events]
        assert sum(name in FINAL for name in outcomes) == job.revived + job.is_final
        assert outcomes.count("revived") == job.revived

    @staticmethod
    def lines_of(found: Any) -> dict[tuple[str, str], list[str]]:
        parts = ((re.fullmatch(r"lane:([^:]+):line:(.*)", key), key) for key in found.values)
        return {(m[1], m[2]): list(found.scores(key)) for m, key in parts if m}

    @staticmethod
    def turns_of(found: Any) -> dict[tuple[str, str], int]:
        lanes = [m[1] for key in found.values if (m := re.fullmatch(r"lane:([^:]+)", key))]
        return {(lane, name): int(turn) for lane in lanes for name, turn in found.scores(f"lane:{lane}").items()}

    @staticmethod
    def parked_of(found: Any) -> dict[tuple[str, str], int]:
        customers = [m[1] for key in found.values if (m := re.fullmatch(r"parked:(.*)", key))]
        return {(lane, name): int(turn) for name in customers for lane, turn in found.hash(f"parked:{name}").items()}
