"""Following a job: waiting for its outcome; what was kept of what happened to it, then what happens, and the text that it puts
out meanwhile.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from emp_core.errors import JobNotFound
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls
from emp_core.queue.events import JobEvent, decode_event, submitted_event
from emp_core.queue.expecting import Expectations, Expected
from emp_core.queue.listening import Heard, Listener
from emp_core.queue.reading import JobReader

__all__ = ["Follower"]

_REREAD_S = 5.0
_FINAL = frozenset(state.value for state in JobState if state.is_final)
_UNFINISHED = frozenset(state.value for state in JobState) - _FINAL
_SUBMITTED = {"status": JobState.PENDING.value}
_UNKEPT = ("progress", "text")


@frozen
class _Kept:
    """What Redis keeps of a job's story now."""

    events: list[str]
    text: str | None


class Follower:
    """Reads what happens to jobs."""

    def __init__(self, calls: Calls, reader: JobReader, listener: Listener, expectations: Expectations) -> None:
        self._calls = calls
        self._keys = calls.keys
        self._reader = reader
        self._listener = listener
        self._expectations = expectations

    async def wait(self, job_id: str) -> Job:
        """What `JobQueue.wait` does, without an end."""
        expected = self._expectations.waited_for(job_id)
        with expected or self._listener.subscribed(self._keys.done_channel(job_id)) as heard:
            fields: Mapping[str, str]
            payload: str | None
            if isinstance(heard, Expected):
                fields, payload = _SUBMITTED, heard.payload
            else:
                questions = self._reader.questions(job_id)
                fields, payload = await heard.subscribed(*questions) or await self._reader.read(job_id)
            while True:
                while fields.get("status") in _UNFINISHED:
                    fields = _told(await heard.last(_REREAD_S)) or await self._reader.fields(job_id)
                if payload is not None:
                    return self._reader.decoded(job_id, fields, payload)
                # It is large; or there is no such job, and reading it says so.
                if (job := await self._reader.get(job_id)).status.is_final:
                    return job
                fields = await self._reader.fields(job_id)

    async def history(self, job_id: str) -> list[JobEvent]:
        """What was kept of what happened to the job. Raises JobNotFound: there is no such job."""
        return [decode_event(text) for text in (await self._kept(job_id)).events]

    async def events(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """What happened to the job from its beginning, then what happens, to its outcome. See `JobQueue.events`."""
        with self._listener.subscribed(self._keys.events_channel(job_id)) as heard:
            await heard.subscribed()
            await self._calls.run("mark", {"id": job_id, "field": "watched"})
            last: str | None = None
            text = _TextSoFar()
            while True:
                kept = await self._kept(job_id)
                # Not by position: the list is capped, its oldest entries go.
                start = len(kept.events) - kept.events[::-1].index(last) if last in kept.events else 0
                for told in kept.events[start:]:
                    yield (event := decode_event(told))
                    text.see(event)
                last = kept.events[-1]
                if _is_over(kept.events):
                    return
                if missed := text.missed(job_id, kept.text):
                    yield missed
                while (heard_event := await _next_unkept(heard)) is not None:
                    if text.has_gap_before(heard_event):
                        missed = text.missed(job_id, (await self._kept(job_id)).text)
                        if missed is not None:
                            yield missed
                    if (new := text.new_of(heard_event)) is not None:
                        yield new

    async def _kept(self, job_id: str) -> _Kept:
        async def read() -> Any:
            async with self._calls.client.pipeline(transaction=False) as pipe:
                pipe.hmget(self._keys.job(job_id), "created_at", "start_at")
                pipe.lrange(self._keys.job_events(job_id), 0, -1)
                pipe.get(self._keys.job_text(job_id))
                return await pipe.execute()

        (created_at, start_at), events, text = await self._calls.repeated(read)
        if created_at is None:
            raise JobNotFound(f"there is no job {job_id}")
        return _Kept([submitted_event(job_id, created_at, start_at), *events], text)


@define
class _TextSoFar:
    """How much of the running attempt's text was told, in bytes of UTF-8.

    Pieces may come twice, or not at all: then what Redis keeps fills the gap.
    """

    _at: int = 0
    _last: JobEvent | None = field(default=None)

    def see(self, event: JobEvent) -> None:
        """A kept event was told. A new attempt begins with no text."""
        self._last = event
        if event.name == "claimed":
            self._at = 0

    def has_gap_before(self, event: JobEvent) -> bool:
        """Whether something is missing between what was told and this piece."""
        return event.name == "text" and _offset(event) > self._at

    def missed(self, job_id: str, kept: str | None) -> JobEvent | None:
        """What of the kept text was not told yet."""
        data = (kept or "").encode()
        if len(data) <= self._at or self._last is None:
            return None
        piece, offset, self._at = data[self._at :], self._at, len(data)
        return JobEvent(
            "text", job_id, self._last.at, None, {"offset": offset, "text": piece.decode("utf-8", "replace")}
        )

    def new_of(self, event: JobEvent) -> JobEvent | None:
        """What of a piece was not told yet; other events as they are."""
        if event.name != "text":
            return event
        data, offset = str(event.data.get("text", "")).encode(), _offset(event)
        end = offset + len(data)
        if end <= self._at:
            return None
        new = data[max(0, self._at - offset) :]
        begins, self._at = end - len(new), end
        return evolve(event, data={**event.data, "offset": begins, "text": new.decode("utf-8", "replace")})


def _told(text: str | None) -> Mapping[str, str] | None:
    """The settled job's hash, where it was published: not if it is large, or nobody was seen to listen."""
    if not text or not text.startswith("{"):
        return None
    try:
        fields: dict[str, str] = json.loads(text)
    except (ValueError, RecursionError):  # anybody may publish anything
        return None
    return fields if set(map(type, fields.values())) == {str} and fields.get("status") in _FINAL else None


def _offset(event: JobEvent) -> int:
    return int(event.data.get("offset", 0))


def _is_over(kept: list[str]) -> bool:
    """Whether the outcome is among the events. Something may have been noted after it, by a submitter that was slower."""
    changes = (event for text in reversed(kept) if (event := decode_event(text)).status is not None)
    return (latest := next(changes, None)) is not None and latest.is_final


async def _next_unkept(heard: Heard) -> JobEvent | None:
    """Progress or text that was just told; None when it is time to read what was kept."""
    text = await heard.next(_REREAD_S)
    if text and (event := decode_event(text)).name in _UNKEPT:
        return event
    return None
