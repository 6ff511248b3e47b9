"""Deleting artifacts that have reached the age of their retention class."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta

import anyio
from attrs import define, field

from emp_core.errors import StorageError, StorageUnavailable
from emp_core.log.logger import get_logger
from emp_core.storage.configured import DEFAULT
from emp_core.storage.interface import ArtifactStore, StoredObject

__all__ = ["UNCLASSED", "Pruning", "prune", "to_prune"]

log = get_logger("emp.storage")

UNCLASSED = DEFAULT
"""The retention class of artifacts that were given none."""

_AT_ONCE = 8


@define
class Pruning:
    """What was done so far.

    Attributes:
        deleted: artifacts by retention class.
        failed: artifacts that could not be deleted, with why.
    """

    deleted: Counter[str] = field(factory=Counter)
    size_bytes: int = 0
    failed: dict[str, str] = field(factory=dict)


async def to_prune(
    store: ArtifactStore,
    *,
    now: datetime,
    ages_s: Mapping[str, float],
    older_than_s: float | None = None,
    unknown: Counter[str] | None = None,
) -> AsyncIterator[StoredObject]:
    """The artifacts that are past their age. What somebody else put into the store is never among them.

    Args:
        ages_s: seconds by retention class. An artifact of a class that is not there is kept.
        older_than_s: the age for all of them, in the place of those.
        unknown: told how many artifacts are kept because their class has no age. The youngest may not be counted.
    """
    least_s = older_than_s if older_than_s is not None else min(ages_s.values(), default=None)
    if least_s is None:
        return
    async for one in store.list_objects(stored_before=_before(now, least_s)):
        name = one.retention or UNCLASSED
        age_s = older_than_s if older_than_s is not None else ages_s.get(name)
        if age_s is None:
            if unknown is not None:
                unknown[name] += 1
        elif one.stored_at is not None and one.stored_at < _before(now, age_s):
            yield one


async def prune(
    store: ArtifactStore, found: AsyncIterator[StoredObject], on_deleted: Callable[[Pruning], None]
) -> Pruning:
    """Delete artifacts, a few at a time. What is deleted stays so, whenever this ends; called again, it goes on.

    Args:
        on_deleted: told after each one.

    Raises:
        StorageUnavailable: the store cannot be reached any more, or refuses us. What else goes wrong with one artifact
            is noted, and the others are deleted.
    """
    done = Pruning()
    give, take = anyio.create_memory_object_stream[StoredObject]()

    async def delete() -> None:
        async for one in take:
            try:
                await store.delete(one.key)
            except StorageUnavailable:
                raise
            except StorageError as error:
                log.warning("an artifact could not be deleted", key=one.key, error=error.message)
                done.failed[one.key] = error.message
                continue
            done.deleted[one.retention or UNCLASSED] += 1
            done.size_bytes += one.size_bytes
            on_deleted(done)

    try:
        with take:
            async with anyio.create_task_group() as group, give:
                for _ in range(_AT_ONCE):
                    group.start_soon(delete)
                async for one in found:
                    await give.send(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return done


def _before(now: datetime, age_s: float) -> datetime:
    # An age of thousands of years is before the first datetime that there is.
    return now - timedelta(seconds=min(age_s, (now - datetime.min.replace(tzinfo=now.tzinfo)).total_seconds() - 1))
