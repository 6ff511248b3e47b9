"""The checker finds what it is there to find: it is given histories that no queue may write."""

from datetime import UTC, datetime
from typing import Any

import pytest

from emp_core.jobs.states import JobState
from emp_core.queue.events import JobEvent
from emp_core.testing.leaks import Snapshot
from tests.chaos.checker import judge, problems_of

_STATES = {
    "submitted": "pending",
    "claimed": "active",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "retried": "scheduled",
    "released": "pending",
    "rescued": "pending",
    "promoted": "pending",
}


def history(*steps: str) -> list[JobEvent]:
    """Events from words: ``claimed:a1`` is claimed by a in attempt 1."""
    made = []
    for step in steps:
        name, _, by = step.partition(":")
        data: dict[str, Any] = {"worker": by[0], "attempt": int(by[1:])} if by else {}
        status = JobState(_STATES[name]) if name in _STATES else None
        made.append(JobEvent(name, "j", datetime.now(UTC), status, data))
    return made


@pytest.mark.parametrize(
    "steps",
    [
        "submitted claimed:a1 completed:a1",
        "submitted claimed:a1 worker_lost:a1 rescued claimed:b2 completed:b2",
        "submitted claimed:a1 worker_lost:a1 failed",
        "submitted claimed:a1 released claimed:a1 failed:a1",
        "submitted claimed:a1 retried:a1 promoted claimed:b2 completed:b2",
        "submitted cancelled",
        "submitted claimed:a1 cancel_requested cancelled:a1",
    ],
)
def test_what_may_happen_is_no_problem(steps: str):
    assert problems_of(history(*steps.split())) == []


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("", "it is gone"),
        ("claimed:a1 completed:a1", "first event is claimed"),
        ("submitted", "stuck: it is pending"),
        ("submitted claimed:a1", "stuck: it is active, held by a in attempt 1"),
        ("submitted claimed:a1 completed:a1 completed:a1", "completed after it was completed"),
        ("submitted claimed:a1 completed:a1 failed:a1", "failed after it was completed"),
        ("submitted claimed:a1 claimed:b2 completed:b2", "claimed by b while it was active, held by a"),
        ("submitted claimed:a1 worker_lost:a1 rescued claimed:b2 completed:a1", "completed by a in attempt 1 while"),
        (
            "submitted claimed:a1 worker_lost:a1 rescued completed:a1",
            "completed by a in attempt 1 while it was pending",
        ),
        ("submitted claimed:a1 worker_lost:a1 rescued completed", "completed by nobody who held it"),
        ("submitted claimed:a1 released released claimed:b1 completed:b1", "released by nobody who held it"),
        ("submitted claimed:a1 worker_lost:b1 rescued claimed:b2 completed:b2", "taken from b while"),
        ("submitted submitted claimed:a1 completed:a1", "submitted twice"),
        ("submitted claimed:a1 completed:a2", "completed by a in attempt 2 while"),
        ("submitted claimed:a1 completed:a1 rescued", "rescued after it was completed"),
    ],
)
def test_what_may_not_happen_is_found(steps: str, problem: str):
    found = problems_of(history(*steps.split()))
    assert any(problem in one for one in found), found


def _snapshot(status: str, *indexes: str) -> Snapshot:
    values: dict[str, Any] = {"jobs:j": {"status": status}}
    values |= {f"jobs:{index}": [("j", 1.0)] for index in indexes}
    return Snapshot(values, frozenset())


def test_a_clean_run_is_counted():
    verdict = judge(
        ["j"], {"j": history("submitted", "claimed:a1", "completed:a1")}, _snapshot("completed", "completed")
    )
    assert (verdict.jobs, verdict.outcomes, verdict.lost, verdict.doubled) == (1, {"completed": 1}, 0, 0)
    assert verdict.problems == ()


def test_lost_and_doubled_jobs_are_counted():
    twice = history("submitted", "claimed:a1", "completed:a1", "completed:a1")
    verdict = judge(["j", "gone"], {"j": twice}, _snapshot("completed", "completed"))
    assert (verdict.lost, verdict.doubled) == (1, 1)
    assert {problem.split(":")[0] for problem in verdict.problems} == {"j", "gone"}


@pytest.mark.parametrize(
    ("snapshot", "problem"),
    [
        (_snapshot("completed", "completed", "active"), "stands in ['active', 'completed']"),
        (_snapshot("completed"), "no index"),
        (_snapshot("failed", "failed"), "was completed, and is stored as failed"),
        (Snapshot({}, frozenset()), "is stored as None"),
    ],
)
def test_what_is_stored_must_agree(snapshot: Snapshot, problem: str):
    verdict = judge(["j"], {"j": history("submitted", "claimed:a1", "completed:a1")}, snapshot)
    assert any(problem in one for one in verdict.problems), verdict.problems
