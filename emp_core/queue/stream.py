"""The stream of all events: replayed from any point, or shared out among the readers of a group."""

import json
import re
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

from attrs import frozen
from redis import exceptions

from emp_core.errors import ConfigError
from emp_core.jobs.requirements import in_brief
from emp_core.queue.calls import Calls
from emp_core.queue.connection import AWAY
from emp_core.queue.events import JobEvent, decode_event_fields

__all__ = ["EventBatch", "EventReader"]

_COUNT = 100
_POSITION = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
_POSITION_MAX = 2**64
_NAME_MAX = 128


@frozen
class EventBatch:
    """Events that were written together.

    Attributes:
        position: of the batch in the stream; reading goes on after it.
        gap: whether older entries were trimmed before they were read, or before they were acknowledged: what they told is
            lost to this reader.
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
        start: where a new group begins: ``0`` for what is kept, ``$`` for what comes, the position of a batch for what
            came after it.

    Raises:
        ConfigError: one of the texts cannot be used; tells every mistake.
    """

    def __init__(self, calls: Calls, group: str, name: str, *, start: str = "0") -> None:
        if problems := tuple(_problems(group, name, start)):
            raise ConfigError(
                "the events cannot be read like this",
                problems=problems,
                hint='for example event_reader("webhooks", "reader-1", start="0")',
            )
        self._calls = calls
        self._key = calls.keys.fixed("events")
        self._group = group
        self._name = name
        self._start = start
        self._gap = False

    async def batches(self) -> AsyncGenerator[EventBatch, None]:
        """Batches as they come, what this reader had not acknowledged first."""
        await self._calls.repeated(lambda: self._make_group(self._start))
        last, again = "0", True

        async def read() -> Any:
            nonlocal again
            try:
                return await self._read(last if again else ">")
            except AWAY:
                again = True  # Redis counts what a lost reply told of as read: it is not among what is new
                raise

        while True:
            if not again:
                await self._look_for_a_gap()
            entries = await self._calls.repeated(read)
            if entries is None:
                # Redis lost its data, and the group with it.
                await self._calls.repeated(lambda: self._make_group("0"))
                last, again, self._gap = "0", False, True
                continue
            again = again and bool(entries)
            for last, fields in entries:
                if not fields:  # trimmed before it was acknowledged: nobody can do anything about it any more
                    await self._acknowledge(last)
                    self._gap = True
                    continue
                yield self._batch(last, fields)

    async def _look_for_a_gap(self) -> None:
        """In two steps: were it told and forgotten in one, a reply that is lost would leave nobody who knows."""
        if trimmed := await self._calls.run("gap", {"group": self._group, "known": 0}):
            self._gap = True
            await self._calls.run("gap", {"group": self._group, "known": trimmed})

    async def acknowledge(self, batch: EventBatch) -> None:
        """The batch is done with: it does not come again."""
        await self._acknowledge(batch.position)

    async def _acknowledge(self, position: str) -> None:
        await self._calls.repeated(lambda: self._calls.client.xack(self._key, self._group, position))

    async def take_over(self, idle_s: float) -> list[EventBatch]:
        """Batches that another reader of the group has not acknowledged for ``idle_s``: it is probably gone.

        Where some of them were trimmed meanwhile, the next batch of this reader tells of a gap: the first of these, or
        else the next one of `batches`.
        """
        await self._calls.repeated(lambda: self._make_group(self._start))
        taken: list[Any] = []
        cursor = "0-0"
        while True:
            cursor, entries, trimmed = await self._calls.repeated(partial(self._claim, idle_s, cursor))
            taken += entries
            self._gap = self._gap or bool(trimmed)
            if cursor == "0-0":
                return [self._batch(*entry) for entry in taken]

    async def _claim(self, idle_s: float, cursor: str) -> tuple[str, Any, Any]:
        """Where to go on, the entries, and the ids of those that were trimmed: from now on they count as acknowledged."""
        cursor, entries, trimmed = await self._calls.client.xautoclaim(
            self._key, self._group, self._name, min_idle_time=round(idle_s * 1000), start_id=cursor, count=_COUNT
        )
        return cursor, entries, trimmed

    def _batch(self, position: str, fields: dict[str, str]) -> EventBatch:
        gap, self._gap = self._gap, False
        return EventBatch(position, _events(fields), gap)

    async def _make_group(self, start: str) -> None:
        where: dict[str, Any] = {"id": start}
        if start == "$":
            # With the number of entries before it, so that a gap is seen even before anything was read.
            where = await self._end()
        try:
            await self._calls.client.xgroup_create(self._key, self._group, **where, mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _end(self) -> dict[str, Any]:
        try:
            stream = await self._calls.client.xinfo_stream(self._key)
        except exceptions.ResponseError as error:
            if "no such key" not in str(error):
                raise
            return {"id": "0-0", "entries_read": 0}
        return {"id": stream["last-generated-id"], "entries_read": stream["entries-added"]}

    async def _read(self, position: str) -> Any:
        """Entries after a position; None when there is no such group any more."""
        try:
            replies = await self._calls.client.xreadgroup(
                self._group,
                self._name,
                {self._key: position},
                count=_COUNT,
                block=self._calls.block_ms if position == ">" else None,
            )
        except exceptions.ResponseError as error:
            if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                return None
            raise
        return replies[0][1] if replies else []


def _problems(group: Any, name: Any, start: Any) -> Iterator[str]:
    """What is wrong with a reader's texts, whatever they are: a program may have them from elsewhere."""
    for what, text in (("group", group), ("name", name)):
        if not isinstance(text, str) or not text.strip() or len(text) > _NAME_MAX or not text.isprintable():
            yield f"{what}: expected 1 to {_NAME_MAX} printable characters, not {in_brief(text)}"
    if start != "$" and not (isinstance(start, str) and _is_position(start)):
        yield f"start: expected 0, $ or the position of a batch, such as 1767225600000-0, not {in_brief(start)}"


def _is_position(text: str) -> bool:
    """Whether it is an entry's id: one or two numbers of 64 bits (https://redis.io/docs/latest/develop/data-types/streams/)."""
    return _POSITION.fullmatch(text) is not None and all(int(part) < _POSITION_MAX for part in text.split("-"))


def _events(fields: dict[str, str]) -> tuple[JobEvent, ...]:
    return tuple(decode_event_fields(event) for event in json.loads(fields["events"]))
