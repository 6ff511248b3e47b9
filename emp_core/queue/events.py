"""What happened to a job, as the scripts wrote it down."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from emp_core.jobs.codec import from_us
from emp_core.jobs.states import JobState

__all__ = ["JobEvent", "decode_event", "decode_event_fields", "submitted_event"]


@frozen
class JobEvent:
    """One entry of a job's events.

    Attributes:
        name: ``submitted``, ``claimed``, ``progress``, ``text``, ``completed``, ``failed``, ``cancelled``, ``retried``,
            ``released``, ``rescued``, ``worker_lost``, ``promoted``, ``revived``, ``cancel_requested``,
            ``reprioritized``, ``unserved``, ``warned``, ``mended``.
        at: when, by Redis's clock.
        status: the job's state after it, where it changed.
        data: everything else that was noted: worker, attempt, waiting time, error, the attempt's record; of ``text`` the
            new ``text`` and its ``offset`` in bytes of UTF-8.
    """

    name: str
    job_id: str
    at: datetime
    status: JobState | None = None
    data: Mapping[str, Any] = field(factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether it is the job's outcome."""
        return self.status is not None and self.status.is_final

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        shown: dict[str, Any] = {"event": self.name, "job": self.job_id, "at": self.at.isoformat()}
        if self.status is not None:
            shown["status"] = self.status.value
        return {**shown, **self.data}


def decode_event(text: str) -> JobEvent:
    """An event from the form that it has in a job's list and on its channel."""
    return decode_event_fields(json.loads(text))


def decode_event_fields(data: dict[str, Any]) -> JobEvent:
    """An event from its members; takes them out of ``data``."""
    status = data.pop("status", None)
    at = from_us(data.pop("at"))
    assert at is not None  # noqa: S101 - every script writes it
    return JobEvent(data.pop("event"), data.pop("job"), at, JobState(status) if status else None, data)


def submitted_event(job_id: str, created_at: str, start_at: str | None) -> str:
    """The first event of every job, as it stands in the stream. The job's own list leaves it out: the hash tells it.

    Args:
        created_at, start_at: from the hash, in microseconds since 1970.
    """
    later = start_at is not None and float(start_at) > float(created_at)
    status = JobState.SCHEDULED if later else JobState.PENDING
    return f'{{"event":"submitted","job":"{job_id}","at":{created_at},"status":"{status.value}"}}'
