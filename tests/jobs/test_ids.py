"""Ids of jobs sort by the time they were made, and no two are the same."""

import os
import threading
import time

import pytest

from emp_core.jobs import ids
from emp_core.jobs.ids import is_job_id, is_service_name, new_job_id


def test_each_id_is_greater_than_the_one_before():
    made = [new_job_id() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {26}
    assert all(is_job_id(one) for one in made)


def test_threads_never_make_the_same_id_and_each_sees_its_own_grow():
    made: list[list[str]] = [[] for _ in range(8)]
    begin = threading.Barrier(len(made))

    def make(into: list[str]) -> None:
        begin.wait()
        into.extend(new_job_id() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({one for own in made for one in own}) == 16_000


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ids, "_last", 0)  # and what it was comes back afterwards
    made = []
    for second in (2_000_000_000, 2_000_000_000.001, 2_000_000_001, 9_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda at=second: int(at * 1e9))
        made.append(new_job_id())
    assert made == sorted(made)
    assert made[0][:10] == crockford(2_000_000_000_000)


def crockford(number: int) -> str:
    """Ten digits in base 32, without I, L, O and U."""
    digits = "0123456789abcdefghijklmnopqrstuv"
    letters = str.maketrans(digits, "0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    return "".join(digits[number // 32**place % 32] for place in reversed(range(10))).translate(letters)


def test_a_clock_that_goes_back_does_not_make_smaller_ids(monkeypatch: pytest.MonkeyPatch):
    before = new_job_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_job_id() > before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_forked_does_not_make_its_parents_ids(monkeypatch: pytest.MonkeyPatch):
    """Counting up from the same number, within the same millisecond, both would make the same ids."""
    monkeypatch.setattr(ids, "_last", 0)  # and what it was comes back afterwards
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    new_job_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_job_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 26).decode() != new_job_id()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("name", ["a", "job-1", "A_b.c", "0", "-", "x" * 64, "pending.1"])
def test_plain_names_may_be_ids_and_services(name: str):
    assert is_job_id(name)
    assert is_service_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a:b", "a@b", "a b", "a/b", "ä", "a\n", "x" * 65, "{a}", "a*"])
def test_what_could_be_taken_for_something_else_may_not(name: str):
    assert not is_job_id(name)
    assert not is_service_name(name)


@pytest.mark.parametrize("name", ["pending", "scheduled", "deadlines", "active", "completed", "failed", "cancelled"])
def test_the_queues_own_keys_are_no_ids(name: str):
    assert not is_job_id(name)
    assert is_service_name(name)
