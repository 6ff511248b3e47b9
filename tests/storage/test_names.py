"""Names of outputs never meet, and never leave the folder that they belong to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import UnsafeName
from emp_core.jobs.model import Destination, Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.names import artifact_key, own_name, safe_key


def job(ctx: Destination | None = None, **known: Any) -> Job:
    return Job("j", "echo", "echo", JobState.ACTIVE, requirement=Requirement.plain("echo"), ctx=ctx, **known)


@pytest.mark.parametrize(
    ("ctx", "name", "key"),
    [
        (None, "cat.png", "j/1-0-cat.png"),
        (None, "deep/er/cat.png", "j/deep/er/1-0-cat.png"),
        (Destination(prefix="shots/010"), "cat.png", "shots/010/j/1-0-cat.png"),
        (Destination(prefix="/shots/010/"), "cat.png", "shots/010/j/1-0-cat.png"),
        (Destination(filename="hero"), "cat.png", "j/1-0-hero.png"),
        (Destination(filename="hero.png"), "cat.png", "j/1-0-hero.png"),
        (Destination(filename="hero.v2"), "cat.png", "j/1-0-hero.v2.png"),
        (Destination(filename="hero"), "mesh.tar.gz", "j/1-0-hero.gz"),
        (Destination(prefix="a", filename="hero"), "sub/cat.webp", "a/j/sub/1-0-hero.webp"),
    ],
)
def test_an_output_is_named_by_its_job_attempt_and_index(ctx: Destination | None, name: str, key: str) -> None:
    assert artifact_key(job(ctx, attempt=1), 0, name) == key


def test_no_two_outputs_share_a_name_whatever_becomes_of_a_job() -> None:
    lives = [(1, 0), (1, 1), (2, 1), (2, 2), (11, 0), (1, 11)]  # counted attempts, and times that it came back
    for ctx in (None, Destination(filename="hero")):
        keys = [
            artifact_key(job(ctx, attempt=attempt, returned=returned), index, name)
            for attempt, returned in lives
            for index, name in enumerate(["cat.png", "cat.png", "0-cat.png", "1-0-cat.png"])
        ]
        assert len(set(keys)) == len(keys)


UNSAFE = ["../cat.png", "/cat.png", "a/../../cat.png", "C:cat.png", "a\\cat.png", "a\0b", "", ".", "a//b"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_tries_to_leave_is_refused(name: str) -> None:
    with pytest.raises(UnsafeName):
        artifact_key(job(attempt=1), 0, name)
    for ctx in (Destination(prefix=name), Destination(filename=name)):
        if name.strip("/") == "cat.png" or not name:
            continue  # a prefix with a slash at its ends is one without, and an empty one is none
        with pytest.raises(UnsafeName):
            artifact_key(job(ctx, attempt=1), 0, "cat.png")


@given(st.text(max_size=60))
def test_whatever_passes_stays_below_its_folder(name: str) -> None:
    try:
        key = safe_key(name)
    except UnsafeName:
        return
    assert not key.startswith(("/", "\\"))
    assert not {"", ".", ".."} & set(key.split("/"))
    assert "\\" not in key
    assert key.isprintable()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("shots/010/j/1-0-cat.png", "cat.png"),
        ("j/2.1-13-cat.png", "cat.png"),
        ("j/1-0-7-8-cat.png", "7-8-cat.png"),
        ("j/cat.png", "cat.png"),
        ("j/1-0-", "1-0-"),
    ],
)
def test_an_output_has_a_name_of_its_own(key: str, name: str) -> None:
    assert own_name(key) == name
