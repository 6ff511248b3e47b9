"""Attempt records: what each attempt of a job took, read from the job's events."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import cattrs
from attrs import evolve, frozen

from emp_core.queue.events import JobEvent

__all__ = ["AttemptRecord", "attempts_of"]

_ENDS = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "retried": "retry",
    "released": "released",
    "worker_lost": "worker_lost",
}
_TOLD = ("loading_ms", "ran_ms", "gpu_memory_mb", "gpu_utilization", "cache_hits", "error")
_converter = cattrs.Converter()


@frozen
class AttemptRecord:
    """One execution under one lease.

    Attributes:
        number: from 1; a released attempt does not count, so that its number comes again.
        waited_ms: from when the job could be claimed to the claim.
        loading_ms: of the running time, what the service needed to get ready, where the connector tells it.
        ran_ms: from the claim to the outcome; None when the worker was lost.
        gpu_memory_mb: the most that was in use on the worker's GPU; gpu_utilization: its mean, 0 to 100.
        cache_hits: what the service did not have to do again, where the connector tells it.
        outcome: ``completed``, ``failed``, ``cancelled``, ``retry``, ``released``, ``worker_lost``; None while it runs.
        error: code and message of its failure.
    """

    number: int
    worker_id: str
    machine_id: str
    began_at: datetime
    waited_ms: float
    ended_at: datetime | None = None
    loading_ms: float | None = None
    ran_ms: float | None = None
    gpu_memory_mb: int | None = None
    gpu_utilization: float | None = None
    cache_hits: int | None = None
    outcome: str | None = None
    error: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        shown: dict[str, Any] = _converter.unstructure(self)
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in shown.items() if v is not None}


def attempts_of(events: Iterable[JobEvent]) -> list[AttemptRecord]:
    """The attempts that a job's events tell of, in the order in which they began."""
    attempts: list[AttemptRecord] = []
    for event in events:
        data = event.data
        if event.name == "claimed":
            waited_ms = round(data["waited_us"] / 1000, 3)
            attempts.append(AttemptRecord(data["attempt"], data["worker"], data["machine"], event.at, waited_ms))
        elif event.name in _ENDS and attempts and attempts[-1].outcome is None:
            told = {name: data[name] for name in _TOLD if name in data}
            attempts[-1] = evolve(attempts[-1], ended_at=event.at, outcome=_ENDS[event.name], **told)
    return attempts
