"""All events, for readers that share the work: nothing is missed unnoticed, and what was not acknowledged comes again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import evolve

from emp_core.errors import ConfigError
from emp_core.queue.queue import JobQueue
from emp_core.queue.stream import EventBatch, EventReader

from .hands import Hands, put

LIMIT_S = 10.0
Meanwhile = Callable[[], Awaitable[object]]
LoseReplies = Callable[[int, Meanwhile], None]


@pytest.fixture(autouse=True)
async def _somebody_serves(hands: Hands) -> None:
    """Else the events would tell that nobody does."""
    await hands(name="serves")


@asynccontextmanager
async def reading(reader: EventReader) -> AsyncIterator["Batches"]:
    """The batches of a reader, one at a time."""
    async with aclosing(reader.batches()) as batches:
        yield Batches(reader, batches)


class Batches:
    def __init__(self, reader: EventReader, batches: AsyncIterator[EventBatch]) -> None:
        self.reader = reader
        self._batches = batches

    async def next(self, *, acknowledge: bool = True) -> EventBatch:
        with anyio.fail_after(LIMIT_S):
            batch = await anext(self._batches)
        if acknowledge:
            await self.reader.acknowledge(batch)
        return batch

    async def told(self, *, acknowledge: bool = True) -> list[tuple[str, str]]:
        """What the next batch tells: names of events and jobs."""
        return [(event.name, event.job_id) for event in (await self.next(acknowledge=acknowledge)).events]


async def trim(queue: JobQueue, keep: int = 0) -> None:
    await queue.client.xtrim(queue.keys.fixed("events"), maxlen=keep, approximate=False)


async def pending(queue: JobQueue) -> int:
    """How many batches a group has read and not acknowledged."""
    count: int = (await queue.client.xpending(queue.keys.fixed("events"), "g"))["pending"]
    return count


@pytest.fixture
def lose_replies(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> LoseReplies:
    """Loses so many of the next replies that tell of entries, after something else was done."""
    read = queue.client.xreadgroup
    to_lose: list[Meanwhile] = []

    async def read_badly(*asked: Any, **how: Any) -> Any:
        reply = await read(*asked, **how)
        if to_lose and reply and reply[0][1]:
            await to_lose.pop()()
            raise ConnectionError("the reply was lost")
        return reply

    monkeypatch.setattr(queue.client, "xreadgroup", read_badly)
    return lambda times, meanwhile: to_lose.extend([meanwhile] * times)


async def has_group(queue: JobQueue) -> bool:
    return bool(await queue.client.xinfo_groups(queue.keys.fixed("events")))


async def test_all_that_is_kept_is_replayed_from_the_beginning(queue: JobQueue, hands: Hands):
    await put(queue, "a")
    hand = await hands()
    await hand.finish(await hand.take_one())
    async with reading(queue.event_reader("g", "r")) as batches:
        assert [await batches.told() for _ in range(3)] == [
            [("submitted", "a")],
            [("claimed", "a")],
            [("completed", "a")],
        ]
        await put(queue, "b")
        assert await batches.told() == [("submitted", "b")]


async def test_a_group_that_begins_now_is_told_what_comes(queue: JobQueue):
    await put(queue, "old")
    async with reading(queue.event_reader("g", "r", start="$")) as batches, anyio.create_task_group() as group:
        told: list[tuple[str, str]] = []

        async def read() -> None:
            told.extend(await batches.told())

        group.start_soon(read)
        with anyio.fail_after(LIMIT_S):
            while not await has_group(queue):  # noqa: ASYNC110 - nothing tells that the group is there
                await anyio.sleep(0.005)
        await put(queue, "new")
    assert told == [("submitted", "new")]


async def test_a_group_goes_on_where_it_was(queue: JobQueue):
    await put(queue, "a")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert await batches.told() == [("submitted", "a")]
    await put(queue, "b")
    async with reading(queue.event_reader("g", "other", start="$")) as batches:
        assert await batches.told() == [("submitted", "b")]


async def test_readers_of_a_group_share_and_groups_do_not(queue: JobQueue):
    await put(queue, "a", "b")
    async with (
        reading(queue.event_reader("g", "one")) as one,
        reading(queue.event_reader("g", "two")) as two,
        reading(queue.event_reader("all", "one")) as alone,
    ):
        assert await one.told() == [("submitted", "a")]
        await put(queue, "c")
        # The first reader took what was there in one go; the second one gets what came since.
        assert await two.told() == [("submitted", "c")]
        assert await one.told() == [("submitted", "b")]
        assert [await alone.told() for _ in range(3)] == [[("submitted", name)] for name in "abc"]


async def test_what_was_not_acknowledged_comes_again_to_the_same_reader(queue: JobQueue):
    await put(queue, "a", "b", "c")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert await batches.told() == [("submitted", "a")]
        first = await batches.next(acknowledge=False)
        assert await batches.told() == [("submitted", "c")]
    await put(queue, "d")
    async with reading(queue.event_reader("g", "r")) as batches:
        again = await batches.next()
        assert again == first
        assert await batches.told() == [("submitted", "d")]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_batch_whose_reply_was_lost_comes_again_while_the_reader_runs(
    queue: JobQueue, lose_replies: LoseReplies, times: int
):
    await put(queue, "kept")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert await batches.told(acknowledge=False) == [("submitted", "kept")]
        await put(queue, "a", "b")
        lose_replies(times, anyio.lowlevel.checkpoint)
        assert [await batches.told() for _ in range(2)] == [[("submitted", "a")], [("submitted", "b")]]
        await put(queue, "c")
        assert await batches.told() == [("submitted", "c")]
    assert await pending(queue) == 1


async def test_a_lost_reply_delays_what_it_told_of_and_changes_no_order(queue: JobQueue, lose_replies: LoseReplies):
    names = [f"j{i:03}" for i in range(130)]
    await put(queue, *names)
    async with reading(queue.event_reader("g", "r")) as batches:
        lose_replies(1, anyio.lowlevel.checkpoint)
        assert [event.job_id for _ in names for event in (await batches.next()).events] == names
    assert await pending(queue) == 0


async def test_it_is_told_when_what_a_lost_reply_told_of_was_trimmed(queue: JobQueue, lose_replies: LoseReplies):
    await put(queue, "a")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert (await batches.next()).gap is False
        await put(queue, "lost")

        async def trimmed() -> None:
            await trim(queue)
            await put(queue, "c")

        lose_replies(1, trimmed)
        batch = await batches.next()
    assert ([event.job_id for event in batch.events], batch.gap) == (["c"], True)


async def test_what_a_reader_left_behind_is_taken_over_once_it_is_idle(queue: JobQueue):
    await put(queue, "a", "b")
    async with reading(queue.event_reader("g", "gone")) as batches:
        await batches.next(acknowledge=False)
        await batches.next()
    heir = queue.event_reader("g", "heir")
    assert await heir.take_over(3600.0) == []
    [taken] = await heir.take_over(0.0)
    assert [event.job_id for event in taken.events] == ["a"]
    await heir.acknowledge(taken)
    assert await heir.take_over(0.0) == []


async def test_taking_over_comes_to_all_that_was_left_behind(queue: JobQueue):
    await put(queue, *(f"j{i:03}" for i in range(130)))
    async with reading(queue.event_reader("g", "gone")) as batches:
        for _ in range(130):
            await batches.next(acknowledge=False)
    heir = queue.event_reader("g", "heir")
    taken = await heir.take_over(0.0)
    assert [event.job_id for batch in taken for event in batch.events] == [f"j{i:03}" for i in range(130)]


async def test_it_is_told_when_what_was_left_behind_was_trimmed_before_it_was_taken_over(queue: JobQueue):
    await put(queue, "lost", "a", "b")
    async with reading(queue.event_reader("g", "gone")) as batches:
        for _ in range(3):
            await batches.next(acknowledge=False)
    await trim(queue, keep=2)
    taken = await queue.event_reader("g", "heir").take_over(0.0)
    assert [([event.job_id for event in batch.events], batch.gap) for batch in taken] == [(["a"], True), (["b"], False)]


async def test_it_is_told_with_the_next_batch_when_nothing_is_left_to_take_over(queue: JobQueue):
    await put(queue, "lost")
    async with reading(queue.event_reader("g", "gone")) as batches:
        await batches.next(acknowledge=False)
    await trim(queue)
    heir = queue.event_reader("g", "heir")
    assert await heir.take_over(0.0) == []
    await put(queue, "a", "b")
    async with reading(heir) as batches:
        assert [(await batches.next()).gap for _ in range(2)] == [True, False]


async def test_a_group_that_does_not_exist_has_nothing_to_take_over(queue: JobQueue):
    assert await queue.event_reader("g", "heir").take_over(0.0) == []


async def test_it_is_told_when_events_were_trimmed_before_they_were_read(queue: JobQueue):
    await put(queue, "a")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert (await batches.next()).gap is False
    await put(queue, "lost1", "lost2", "lost3")
    await trim(queue)
    await put(queue, "c")
    async with reading(queue.event_reader("g", "r")) as batches:
        batch = await batches.next()
        assert ([event.job_id for event in batch.events], batch.gap) == (["c"], True)
        await put(queue, "d")
        assert (await batches.next()).gap is False


async def test_it_is_told_though_the_reply_that_told_of_it_was_lost(queue: JobQueue, monkeypatch: pytest.MonkeyPatch):
    call = queue.client.calls
    lost: list[int] = []

    async def call_badly(*asked: Any) -> Any:
        [reply] = await call(*asked)
        if reply and not lost:
            lost.append(reply)
            raise ConnectionError("the reply was lost")
        return [reply]

    await put(queue, "a")
    async with reading(queue.event_reader("g", "r")) as batches:
        assert (await batches.next()).gap is False
        await put(queue, "lost")
        await trim(queue)
        await put(queue, "c", "d")
        monkeypatch.setattr(queue.client, "calls", call_badly)
        assert [(await batches.next()).gap for _ in range(2)] == [True, False]
    assert lost


async def test_it_is_told_even_when_the_group_had_not_read_anything_yet(queue: JobQueue):
    await put(queue, "old")
    reader = queue.event_reader("g", "r", start="$")
    with anyio.move_on_after(0.05):
        async with reading(reader) as batches:
            await batches.next()
    await put(queue, "lost")
    await trim(queue)
    await put(queue, "new")
    async with reading(reader) as batches:
        batch = await batches.next()
        assert ([event.job_id for event in batch.events], batch.gap) == (["new"], True)


async def test_what_is_trimmed_after_it_was_read_is_no_gap(queue: JobQueue):
    await put(queue, "a", "b")
    async with reading(queue.event_reader("g", "r")) as batches:
        await batches.next()
        await batches.next()
        await trim(queue)
        await put(queue, "c")
        assert (await batches.next()).gap is False


async def test_a_new_group_begins_with_what_is_kept_and_misses_nothing(queue: JobQueue):
    await put(queue, "a", "b")
    await trim(queue, keep=1)
    async with reading(queue.event_reader("g", "r")) as batches:
        batch = await batches.next()
        assert ([event.job_id for event in batch.events], batch.gap) == (["b"], False)


async def test_what_was_trimmed_before_it_was_acknowledged_is_a_gap_and_does_not_come_for_ever(queue: JobQueue):
    await put(queue, "a", "b")
    async with reading(queue.event_reader("g", "r")) as batches:
        await batches.next(acknowledge=False)
        await batches.next(acknowledge=False)
    await trim(queue)
    await put(queue, "c")
    async with reading(queue.event_reader("g", "r")) as batches:
        batch = await batches.next()
        assert ([event.job_id for event in batch.events], batch.gap) == (["c"], True)
    async with reading(queue.event_reader("g", "r")) as batches:
        await put(queue, "d")
        assert (await batches.next()).gap is False
    assert await pending(queue) == 0


async def test_a_redis_that_lost_its_data_is_read_from_its_new_beginning(queue: JobQueue):
    await put(queue, "a")
    async with reading(queue.event_reader("g", "r")) as batches:
        await batches.next()
        await queue.client.delete(queue.keys.fixed("events"))
        await put(queue, "b")
        batch = await batches.next()
        assert ([event.job_id for event in batch.events], batch.gap) == (["b"], True)


async def test_nothing_to_read_is_no_sign_that_redis_is_away(queue: JobQueue, caplog: pytest.LogCaptureFixture):
    """However short the lease, and with it what a reply may take."""
    async with (
        JobQueue.connect(settings=evolve(queue.settings, lease_s=0.5)) as hasty,
        reading(hasty.event_reader("g", "r")) as batches,
    ):
        with anyio.move_on_after(0.7) as quiet:
            await batches.next()
        assert quiet.cancelled_caught
    assert "redis is away" not in caplog.text


@pytest.mark.parametrize(
    "start", ["abc", "", "-", "1-", "1-2-3", "-1", "0\n", "٣", "\ud800", "1" * 30, str(2**64), 0, None]
)
async def test_a_start_that_is_no_position_is_refused_before_redis_is_asked(queue: JobQueue, start: Any):
    with pytest.raises(ConfigError) as refused:
        queue.event_reader("webhooks", "reader-1", start=start)
    [problem] = refused.value.problems
    assert problem.startswith("start: expected 0, $ or the position of a batch")
    assert str(refused.value).encode()
    assert refused.value.hint


@pytest.mark.parametrize("text", ["", "  ", "a\ud800", "two\nlines", "x" * 129, 5, None])
async def test_a_name_that_is_no_text_is_refused(queue: JobQueue, text: Any):
    with pytest.raises(ConfigError) as refused:
        queue.event_reader(text, text, start="abc")
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["group", "name", "start"]


async def test_a_new_group_may_begin_after_a_batch(queue: JobQueue):
    for name in ("a", "b", "c"):
        await put(queue, name)
    async with reading(queue.event_reader("first", "r1")) as batches:
        position = (await batches.next()).position
    async with reading(queue.event_reader("second", "r1", start=position)) as batches:
        assert [event.job_id for _ in range(2) for event in (await batches.next()).events] == ["b", "c"]
