"""Judges a run by what the queue wrote down: it asks nobody who took part."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from emp_core.jobs.states import JobState
from emp_core.queue.events import JobEvent
from emp_core.testing.leaks import Snapshot, disowned

_OUTCOMES = ("completed", "failed", "cancelled")
_BACK = ("retried", "released")
"""What a holder may say other than an outcome."""


@frozen
class Verdict:
    """What became of a run's jobs.

    Attributes:
        outcomes: how many jobs ended how.
        lost: acknowledged jobs that are gone, or that have no outcome.
        doubled: jobs with more than one outcome.
        problems: everything that is wrong, in words; empty when the run was clean.
        rescues: how often a job was taken from a lost worker: the faults had an effect.
    """

    jobs: int
    outcomes: Mapping[str, int]
    lost: int
    doubled: int
    rescues: int
    problems: tuple[str, ...] = field(repr=False)


def judge(acknowledged: Iterable[str], histories: Mapping[str, Sequence[JobEvent]], snapshot: Snapshot) -> Verdict:
    """Check every acknowledged job, and what stands in Redis when all is done.

    Args:
        histories: every job's events as they were written; jobs without are gone.
    """
    problems: list[str] = []
    outcomes: Counter[str] = Counter()
    lost = doubled = rescues = 0
    ids = list(acknowledged)
    for job_id in ids:
        events = histories.get(job_id) or ()
        finals = [event.name for event in events if event.name in _OUTCOMES]
        rescues += sum(event.name == "worker_lost" for event in events)
        outcomes.update(finals[:1])
        lost += not finals
        doubled += len(finals) > 1
        problems += [f"{job_id}: {problem}" for problem in problems_of(events)]
        problems += [f"{job_id}: {problem}" for problem in _stored(job_id, finals, snapshot)]
    problems += [f"{job_id}: acknowledged {times} times" for job_id, times in Counter(ids).items() if times > 1]
    problems += disowned(snapshot)
    return Verdict(len(ids), outcomes, lost, doubled, rescues, tuple(problems))


def problems_of(events: Sequence[JobEvent]) -> list[str]:
    """What is wrong with one job's events: each follows from the one before, and only a holder speaks for its attempt."""
    if not events:
        return ["it is gone"]
    problems = [] if events[0].name == "submitted" else [f"its first event is {events[0].name}"]
    state: JobState | None = None
    holder: tuple[str, int] | None = None
    for event in events:
        said = (event.data.get("worker", holder and holder[0]), event.data.get("attempt", holder and holder[1]))
        if state is not None and state.is_final:
            problems.append(f"{event.name} after it was {state.value}")
        match event.name:
            case "submitted" if state is not None:
                problems.append("submitted twice")
            case "claimed":
                if holder is not None or state is not JobState.PENDING:
                    problems.append(f"claimed by {said[0]} while it was {_shown(state, holder)}")
                holder = (str(event.data.get("worker")), int(event.data.get("attempt", 0)))
            case "worker_lost":
                if holder is None or said != holder:
                    problems.append(f"taken from {said[0]} while it was {_shown(state, holder)}")
                holder = None
            case name if name in _OUTCOMES or name in _BACK:
                if event.data.get("worker") is not None and said != holder:
                    problems.append(f"{name} by {said[0]} in attempt {said[1]} while it was {_shown(state, holder)}")
                if holder is None and name in ("completed", *_BACK):
                    problems.append(f"{name} by nobody who held it")
                holder = None
        state = event.status or state
    if state is None or not state.is_final:
        problems.append(f"stuck: it is {_shown(state, holder)}")
    return problems


def _shown(state: JobState | None, holder: tuple[str, int] | None) -> str:
    where = state.value if state else "nowhere"
    return f"{where}, held by {holder[0]} in attempt {holder[1]}" if holder else where


def _stored(job_id: str, finals: Sequence[str], snapshot: Snapshot) -> list[str]:
    """What is stored agrees with what was told."""
    status = snapshot.hash(f"jobs:{job_id}").get("status")
    if finals and status != finals[-1]:
        return [f"was {finals[-1]}, and is stored as {status}"]
    return []
