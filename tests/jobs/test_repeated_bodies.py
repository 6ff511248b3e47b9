"""What tells a repeated submit from a different one: a digest of what was said, in whatever order it was said."""

from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from emp_core.jobs.codec import encode_spec
from emp_core.jobs.model import Destination, JobSpec
from emp_core.jobs.requirements import Requirements

from . import offers

STORAGE = {"bucket": "pictures", "accountName": "name", "accountKey": "geheim"}
SPEC = JobSpec("echo", {"b": [{"d": 1, "c": 2}], "a": "ü"}, idempotency_key="k")


def kept(spec: JobSpec) -> str:
    """The digest that is kept with the job."""
    fields = encode_spec(evolve(spec, idempotency_key="k"), max_payload_bytes=1_000_000).fields
    return dict(zip(fields[::2], fields[1::2], strict=True))["digest"]


def sent(spec: JobSpec) -> str:
    return encode_spec(spec, max_payload_bytes=1_000_000).digest


def turned(value: Any, by: Random) -> Any:
    """The same JSON value, with the members of its objects in another order."""
    if isinstance(value, list):
        return [turned(one, by) for one in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    by.shuffle(names)
    return {name: turned(value[name], by) for name in names}


@given(payload=offers.json_values, by=st.randoms(use_true_random=False))
def test_the_order_of_an_objects_members_makes_no_other_body(payload: Any, by: Random):
    assert kept(JobSpec("echo", turned(payload, by))) == kept(JobSpec("echo", payload))


@pytest.mark.parametrize(
    ("name", "said", "again"),
    [
        ("labels", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}),
        ("ctx", Destination(storage=STORAGE), Destination(storage=dict(sorted(STORAGE.items())))),
        ("requirements", {"hardware": {"ram_mb": 1, "x": 2}}, {"hardware": {"x": 2.0, "ram_mb": 1.0}}),
        ("requirements", {"hardware": {"ram_mb": 0}}, {"hardware": {"ram_mb": -0.0}}),
        ("requirements", {"hardware": {"ram_mb": 2**100}}, {"hardware": {"ram_mb": 2.0**100}}),
        ("requirements", {"capabilities": {"a": [1, 2]}}, {"capabilities": {"a": [1.0, 2]}}),
        ("requirements", {"exclude": {"a": 1}}, {"exclude": {"a": 1.0}}),
        ("requirements", Requirements(models=("a", "b")), Requirements(models=("b", "a", "a"))),
        ("timeout_s", 30, 30.0),
    ],
)
def test_what_means_the_same_is_no_other_body(name: str, said: Any, again: Any):
    assert kept(evolve(SPEC, **{name: said})) == kept(evolve(SPEC, **{name: again})) != kept(SPEC)


@pytest.mark.parametrize(
    ("name", "said", "other"),
    [
        ("payload", {"seed": 1}, {"seed": 1.0}),
        ("payload", {"seed": 1}, {"seed": True}),
        ("payload", {"a": None}, {}),
        ("payload", [1, 2], [2, 1]),
        ("payload", '{"a":1}', {"a": 1}),
        ("requirements", {"hardware": {"ram_mb": 1}}, {"hardware": {"ram_mb": 1.5}}),
        ("requirements", {"capabilities": {"a": 1}}, {"capabilities": {"a": True}}),
        ("requirements", {"capabilities": {"a": 1}}, {"capabilities": {"a": "1"}}),
    ],
)
def test_what_a_service_or_a_worker_may_tell_apart_is_another_body(name: str, said: Any, other: Any):
    assert kept(evolve(SPEC, **{name: said})) != kept(evolve(SPEC, **{name: other}))


def test_a_body_that_is_said_in_order_has_one_digest_and_any_other_has_that_of_its_own_order_as_well():
    """Jobs that came before the order made no difference have the other one."""
    in_order = evolve(SPEC, payload={"a": "ü", "b": [{"c": 2, "d": 1}]})
    assert sent(in_order) == kept(SPEC)
    assert sent(SPEC).split() == [kept(SPEC), "9ce9080b267be9400bd8ae44"]
