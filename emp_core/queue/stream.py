"""The stream of all events: replayed from any point, or shared out among the readers of a group."""

import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from attrs import frozen
from redis import exceptions

from emp_core.queue.calls import Calls
from emp_core.queue.events import JobEvent, decode_event_fields

__all__ = ["EventBatch", "EventReader"]

_BLOCK_MS = 2000
_COUNT = 100


@frozen
class EventBatch:
    """Events that were written together.

    Attributes:
        position: of the batch in the stream; reading goes on after it.
        gap: whether older entries were trimmed before this reader came to them: what they told is lost to it.
    """

    position: str
    events: tuple[JobEvent, ...]
    gap: bool = False


class EventReader:
    """A named group's view of the stream of all events: every batch goes to one reader of the group, and comes again if
    that reader did not acknowledge it.

    Args:
        group: shared by readers that do the same work.
        name: of this reader within the group; the same one again takes up what it had not acknowledged.
        start: where a new group begins: ``0`` for what is kept, ``$`` for what comes.
    """

    def __init__(self, calls: Calls, group: str, name: str, *, start: str = "0") -> None:
        self._calls = calls
        self._key = calls.keys.fixed("events")
        self._group = group
        self._name = name
        self._start = start

    async def batches(self) -> AsyncGenerator[EventBatch, None]:
        """Batches as they come, what this reader had not acknowledged first."""
        await self._calls.repeated(self._make_group)
        position = "0"
        while True:
            gap = position == ">" and await self._calls.repeated(self._trimmed_unread)
            replies = await self._calls.repeated(partial(self._read, position))
            entries = replies[0][1] if replies else []
            for entry_id, fields in entries:
                if fields:  # what was trimmed before it was acknowledged has none
                    yield EventBatch(entry_id, _events(fields), gap)
                gap = False
            if position != ">":
                position = entries[-1][0] if entries else ">"

    async def acknowledge(self, batch: EventBatch) -> None:
        """The batch is done with: it does not come again."""
        await self._calls.repeated(lambda: self._calls.client.xack(self._key, self._group, batch.position))

    async def take_over(self, idle_s: float) -> list[EventBatch]:
        """Batches that another reader of the group has not acknowledged for ``idle_s``: it is probably gone."""
        reply = await self._calls.repeated(
            lambda: self._calls.client.xautoclaim(
                self._key, self._group, self._name, min_idle_time=round(idle_s * 1000), start_id="0", count=_COUNT
            )
        )
        return [EventBatch(entry_id, _events(fields)) for entry_id, fields in reply[1] if fields]

    async def _make_group(self) -> None:
        try:
            await self._calls.client.xgroup_create(self._key, self._group, id=self._start, mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _read(self, position: str) -> Any:
        return await self._calls.client.xreadgroup(
            self._group, self._name, {self._key: position}, count=_COUNT, block=_BLOCK_MS if position == ">" else None
        )

    async def _trimmed_unread(self) -> bool:
        """Whether entries were trimmed that no reader of the group has seen."""
        async with self._calls.client.pipeline(transaction=False) as pipe:
            pipe.xinfo_stream(self._key)
            pipe.xinfo_groups(self._key)
            stream, groups = await pipe.execute()
        read = next(group["entries-read"] for group in groups if group["name"] == self._group)
        return bool(read and stream["entries-added"] - stream["length"] > read)


def _events(fields: dict[str, str]) -> tuple[JobEvent, ...]:
    return tuple(decode_event_fields(event) for event in json.loads(fields["events"]))
