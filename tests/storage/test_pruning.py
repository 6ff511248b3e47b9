"""Artifacts are deleted when they are past the age of their retention class, and nothing else is."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from emp_core.errors import StorageError, StorageUnavailable
from emp_core.storage.interface import StoredObject
from emp_core.storage.local import LocalStore
from emp_core.storage.pruning import Pruning, prune, to_prune

HOUR_S, DAY_S = 3600.0, 86_400.0
CLASSES = {"draft": 7 * DAY_S, "final": 365 * DAY_S, "default": 90 * DAY_S}


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path)
    for name in ("draft", "final", "odd", None):
        await made.put(f"{name}.bin", b"12345", media_type="text/plain", retention=name)
    return made


async def past(
    store: LocalStore, days: float, ages_s: Mapping[str, float] = CLASSES, older_than_s: float | None = None
) -> tuple[set[str], Counter[str]]:
    """What is past its age when so many days have gone by, and what is kept because its class has none."""
    unknown: Counter[str] = Counter()
    now = datetime.now(UTC) + timedelta(days=days)
    found = to_prune(store, now=now, ages_s=ages_s, older_than_s=older_than_s, unknown=unknown)
    return {one.key async for one in found}, unknown


@pytest.mark.parametrize(
    ("days", "keys"),
    [
        (0, set()),
        (6.9, set()),
        (7.1, {"draft.bin"}),
        (91, {"draft.bin", "None.bin"}),
        (366, {"draft.bin", "None.bin", "final.bin"}),
        (36_500, {"draft.bin", "None.bin", "final.bin"}),
    ],
)
async def test_each_class_has_its_age(store: LocalStore, days: float, keys: set[str]) -> None:
    found, unknown = await past(store, days)
    assert found == keys
    assert unknown == ({"odd": 1} if days > 7 else {})


async def test_without_an_age_nothing_is_past_it(store: LocalStore) -> None:
    assert await past(store, 36_500, {}) == (set(), {})
    found, unknown = await past(store, 36_500, {"nobody": 1.0})
    assert found == set()
    assert unknown == {"draft": 1, "final": 1, "odd": 1, "default": 1}


async def test_one_age_for_all_goes_before_that_of_the_classes(store: LocalStore) -> None:
    found, unknown = await past(store, 2, older_than_s=DAY_S)
    assert (len(found), unknown) == (4, {})
    assert await past(store, 2, older_than_s=3 * DAY_S) == (set(), {})


@pytest.mark.parametrize("age_s", [1e9, 1e12, 1e300])
async def test_an_age_longer_than_there_are_dates_is_none_that_is_reached(store: LocalStore, age_s: float) -> None:
    assert (await past(store, 100, older_than_s=age_s))[0] == set()


async def test_what_somebody_else_put_into_the_folder_is_not_touched(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "foreign.bin").write_bytes(b"foreign")
    assert "foreign.bin" not in (await past(store, 36_500, older_than_s=1.0))[0]


async def listing(store: LocalStore) -> AsyncIterator[StoredObject]:
    async for one in store.list_objects():
        yield one


async def test_what_is_deleted_is_counted_by_class(store: LocalStore) -> None:
    told: list[int] = []
    done = await prune(store, listing(store), lambda so_far: told.append(so_far.deleted.total()))
    assert done == Pruning(Counter({"draft": 1, "final": 1, "odd": 1, "default": 1}), 20, {})
    assert told == [1, 2, 3, 4]
    assert [one async for one in store.list_objects()] == []


async def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = store.delete

    async def stubborn(key: str) -> None:
        if key == "odd.bin":
            raise StorageError("it is held")
        await delete(key)

    monkeypatch.setattr(store, "delete", stubborn)
    done = await prune(store, listing(store), lambda _: None)
    assert done.failed == {"odd.bin": "it is held"}
    assert done.deleted.total() == 3
    assert [one.key async for one in store.list_objects()] == ["odd.bin"]


async def test_a_store_that_goes_away_ends_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: str) -> None:
        raise StorageUnavailable("it went away")

    monkeypatch.setattr(store, "delete", away)
    with pytest.raises(StorageUnavailable):
        await prune(store, listing(store), lambda _: None)
    assert len([one async for one in store.list_objects()]) == 4
