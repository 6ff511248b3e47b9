"""What the server says of prompts: its queue, and its history. Keys may be missing: they differ between versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

__all__ = ["HistoryEntry", "QueueEntry", "QueueView"]


@frozen
class QueueEntry:
    """A prompt that waits or runs: ``[number, prompt_id, graph, extra_data, outputs, …]``."""

    prompt_id: str
    client_id: str | None = None

    @classmethod
    def read(cls, entry: Any) -> "QueueEntry | None":
        """Read an entry of ``/queue``, or the ``prompt`` of one of ``/history``."""
        if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[1], str):
            return None
        extra_data = entry[3] if len(entry) > 3 and isinstance(entry[3], Mapping) else {}
        client_id = extra_data.get("client_id")
        return cls(entry[1], client_id if isinstance(client_id, str) else None)


@frozen
class QueueView:
    """``GET /queue``. Waiting prompts in the order in which they will run."""

    running: tuple[QueueEntry, ...] = ()
    waiting: tuple[QueueEntry, ...] = ()

    @classmethod
    def read(cls, answer: Any) -> "QueueView":
        """Read the answer of the server. ``queue_pending`` is a heap there: its order is made here."""
        if not isinstance(answer, Mapping):
            return cls()
        waiting = [entry for entry in _list(answer.get("queue_pending")) if isinstance(entry, list) and entry]
        waiting.sort(key=lambda entry: entry[0] if isinstance(entry[0], int | float) else 0.0)
        return cls(_entries(_list(answer.get("queue_running"))), _entries(waiting))

    @classmethod
    def read_jobs(cls, answer: Any) -> "QueueView | None":
        """Read ``GET /api/jobs?status=in_progress,pending`` of newer servers; None: that is not what was answered.

        Jobs have an ``id``, a ``status`` and, as ``priority``, the number by which prompts are ordered.
        """
        jobs = answer.get("jobs") if isinstance(answer, Mapping) else None
        if not isinstance(jobs, list) or not all(isinstance(job, Mapping) for job in jobs):
            return None
        if _mapping(answer.get("pagination")).get("has_more"):
            return None  # a part of them: who is missing in it is not gone
        by_number = sorted(jobs, key=lambda job: n if isinstance(n := job.get("priority"), int | float) else 0.0)
        told = [(job.get("status"), job["id"]) for job in by_number if isinstance(job.get("id"), str)]
        return cls(
            tuple(QueueEntry(prompt_id) for status, prompt_id in told if status == "in_progress"),
            tuple(QueueEntry(prompt_id) for status, prompt_id in told if status == "pending"),
        )

    def find(self, prompt_id: str | None, client_id: str | None = None) -> QueueEntry | None:
        """The entry of a prompt: by its id, or by the client_id that only it has."""
        for entry in (*self.running, *self.waiting):
            if entry.prompt_id == prompt_id or (client_id is not None and entry.client_id == client_id):
                return entry
        return None

    def ahead_of(self, prompt_id: str) -> int | None:
        """How many prompts are before this one; None: it does not wait."""
        for place, entry in enumerate(self.waiting):
            if entry.prompt_id == prompt_id:
                return len(self.running) + place
        return None


@frozen
class HistoryEntry:
    """How a prompt ended: its entry of ``GET /history/{prompt_id}``.

    Attributes:
        outputs: node id → what it put out, under any keys.
        error: the ``execution_error`` that ended it, if one did.
        interrupted: whether it was interrupted. The server's ``status_str`` is ``error`` then, as for a failure.
        execution_s: how long it ran, by the server's clock.
    """

    prompt_id: str
    outputs: Mapping[str, Any] = field(factory=dict)
    meta: Mapping[str, Any] = field(factory=dict)
    error: Mapping[str, Any] | None = None
    interrupted: bool = False
    cached: tuple[str, ...] = ()
    execution_s: float | None = None
    client_id: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it ran to its end."""
        return self.error is None and not self.interrupted

    @classmethod
    def read(cls, prompt_id: str, entry: Any) -> "HistoryEntry | None":
        """Read an entry; None: there is none."""
        if not isinstance(entry, Mapping):
            return None
        status = _mapping(entry.get("status"))
        messages = [(m[0], _mapping(m[1])) for m in _list(status.get("messages")) if isinstance(m, list) and len(m) > 1]
        last = messages[-1][0] if messages else None
        error = next((data for name, data in reversed(messages) if name == "execution_error"), None)
        if status.get("status_str") != "error":
            error = None
        elif error is None and last != "execution_interrupted":
            error = {}
        own = QueueEntry.read(entry.get("prompt"))
        return cls(
            prompt_id=prompt_id,
            outputs=_mapping(entry.get("outputs")),
            meta=_mapping(entry.get("meta")),
            error=error,
            interrupted=last == "execution_interrupted",
            cached=_cached(messages),
            execution_s=_execution_s(messages),
            client_id=own.client_id if own is not None else None,
        )


def _cached(messages: Sequence[tuple[Any, Mapping[str, Any]]]) -> tuple[str, ...]:
    nodes = next((data.get("nodes") for name, data in messages if name == "execution_cached"), None)
    return tuple(node for node in _list(nodes) if isinstance(node, str))


def _execution_s(messages: Sequence[tuple[Any, Mapping[str, Any]]]) -> float | None:
    times = [t for _, data in messages if isinstance(t := data.get("timestamp"), int | float)]
    return max(0.0, (times[-1] - times[0]) / 1000) if len(times) > 1 else None


def _entries(entries: Sequence[Any]) -> tuple[QueueEntry, ...]:
    return tuple(read for entry in entries if (read := QueueEntry.read(entry)) is not None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
