"""The states of a job and the moves between them: one table, which the Lua scripts' headers must agree with."""

from enum import StrEnum

__all__ = ["FINAL", "TRANSITIONS", "JobState"]


class JobState(StrEnum):
    """Where a job is in its life."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job has had its one outcome."""
        return self in FINAL


FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: dict[str, frozenset[tuple[JobState | None, JobState]]] = {
    "submit": frozenset({(None, JobState.PENDING), (None, JobState.SCHEDULED), (None, JobState.ACTIVE)}),
    "claim": frozenset({(JobState.PENDING, JobState.ACTIVE)}),
    "finish": frozenset(
        {
            (JobState.ACTIVE, JobState.COMPLETED),
            (JobState.ACTIVE, JobState.FAILED),
            (JobState.ACTIVE, JobState.CANCELLED),
            (JobState.ACTIVE, JobState.SCHEDULED),
            (JobState.ACTIVE, JobState.PENDING),
        }
    ),
    "cancel": frozenset({(JobState.PENDING, JobState.CANCELLED), (JobState.SCHEDULED, JobState.CANCELLED)}),
    "sweep": frozenset(
        {
            (JobState.SCHEDULED, JobState.PENDING),
            (JobState.SCHEDULED, JobState.FAILED),
            (JobState.PENDING, JobState.FAILED),
            (JobState.ACTIVE, JobState.PENDING),
            (JobState.ACTIVE, JobState.FAILED),
            (JobState.ACTIVE, JobState.CANCELLED),
        }
    ),
    "retire": frozenset({(JobState.ACTIVE, JobState.PENDING), (JobState.ACTIVE, JobState.CANCELLED)}),
    "retry": frozenset({(JobState.FAILED, JobState.PENDING), (JobState.CANCELLED, JobState.PENDING)}),
}
"""Script → the moves that it may make. ``None`` is a job that does not exist yet."""
