"""What a job may ask of a worker: read with every mistake told at once, and written so that equals are equal."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import ConfigError
from emp_core.jobs.requirements import NO_REQUIREMENTS, Requirement, Requirements

from . import offers
from .offers import need


def problems(asked: Any) -> tuple[str, ...]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        Requirements.from_dict(asked)
    return caught.value.problems


def test_nothing_asked_is_nothing_required():
    assert Requirements.from_dict(None) == Requirements.from_dict({}) == NO_REQUIREMENTS
    assert NO_REQUIREMENTS.as_dict() == {}


def test_what_was_asked_is_given_back_without_what_was_not():
    asked = {"models": ["b", "a"], "hardware": {"ram_mb": 1}, "exclude": {"slow": True}, "isolation": "loose"}
    assert Requirements.from_dict(asked).as_dict() == {**asked, "models": ["a", "b"]}


def test_every_mistake_is_told_at_once_each_with_its_path():
    asked = {
        "models": ["a", 7, ""],
        "hardware": {"ram_mb": "16", "gpu_count": -1, "cpu_cores": True},
        "capabilities": {"c": {"nested": 1}, "l": [None]},
        "exclude": [],
        "isolation": "total",
        "modles": ["a"],
    }
    assert problems(asked) == (
        "requirements.modles: unknown; known are capabilities, exclude, hardware, isolation, models",
        "requirements.models[1]: expected a name, not a number",
        "requirements.models[2]: expected a name, not a text",
        "requirements.hardware.ram_mb: expected a number of 0 or more, not '16'",
        "requirements.hardware.gpu_count: expected a number of 0 or more, not -1",
        "requirements.hardware.cpu_cores: expected a number of 0 or more, not True",
        "requirements.capabilities.c: expected a number, a text, true, false or a list of those",
        "requirements.capabilities.l: expected a number, a text, true, false or a list of those",
        "requirements.exclude: expected an object, not a list",
        "requirements.isolation: expected one of none, loose, strict, not 'total'",
    )


@pytest.mark.parametrize("given_as", ["a", ["models"], 7, True])
def test_requirements_are_an_object(given_as: Any):
    with pytest.raises(ConfigError, match="requirements must be an object, not a"):
        Requirements.from_dict(given_as)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"models": "a"}, "requirements.models"),
        ({"models": {"a": 1}}, "requirements.models"),
        ({"models": [None]}, "requirements.models[0]"),
        ({"models": ["a\ud800"]}, "requirements.models[0]"),
        ({"hardware": []}, "requirements.hardware"),
        ({"hardware": {"ram_mb": None}}, "requirements.hardware.ram_mb"),
        ({"hardware": {"ram_mb": float("nan")}}, "requirements.hardware.ram_mb"),
        ({"hardware": {"ram_mb": float("inf")}}, "requirements.hardware.ram_mb"),
        ({"hardware": {"ram_mb": 10**400}}, "requirements.hardware.ram_mb"),
        pytest.param({"hardware": {"ram_mb": 10**5000}}, "requirements.hardware.ram_mb", id="more-than-python-writes"),
        ({"hardware": {7: 1}}, "requirements.hardware.7"),
        ({"capabilities": {"c": None}}, "requirements.capabilities.c"),
        ({"capabilities": {"c": float("nan")}}, "requirements.capabilities.c"),
        ({"capabilities": {"c": [1, float("inf")]}}, "requirements.capabilities.c"),
        ({"capabilities": {"c": 10**400}}, "requirements.capabilities.c"),
        ({"capabilities": {"c": "\udfff"}}, "requirements.capabilities.c"),
        ({"capabilities": {"c\ud800": 1}}, "requirements.capabilities.c\\ud800"),
        ({"exclude": {"e": [[1]]}}, "requirements.exclude.e"),
        ({"exclude": {"e": b"bytes"}}, "requirements.exclude.e"),
        ({"isolation": ["strict"]}, "requirements.isolation"),
        ({"isolation": ""}, "requirements.isolation"),
        ({"isolation": False}, "requirements.isolation"),
        ({7: 1}, "requirements.7"),
    ],
)
def test_a_mistake_is_told_with_its_path(asked: Any, path: str):
    [problem] = problems(asked)
    assert problem.startswith(f"{path}: ")
    problem.encode()


def test_none_is_the_same_as_not_said():
    asked = dict.fromkeys(("models", "hardware", "capabilities", "exclude", "isolation"))
    assert Requirements.from_dict(asked) == NO_REQUIREMENTS


def test_a_job_that_asks_nothing_waits_in_the_lane_of_its_service():
    assert Requirement.plain("comfyui").lane == need().lane == "comfyui"
    assert Requirement.plain("comfyui") is Requirement.plain("comfyui")


def test_whatever_decides_who_may_run_a_job_makes_a_lane_of_its_own():
    asked = [
        need({"models": ["a"]}),
        need({"models": ["b"]}),
        need({"capabilities": {"a": 1}}),
        need({"exclude": {"a": 1}}),
        need({"exclude": {"a": True}}),
        need({"hardware": {"a": 1}}),
        need({"isolation": "loose"}, customer="a"),
        need({"isolation": "strict"}, customer="a"),
        need({"isolation": "strict"}, customer="b"),
        need(pool="a"),
        need(region="a"),
        need(avoid=("a",)),
        need(not_here=("a",)),
        need(),
    ]
    lanes = {one.lane for one in asked}
    assert len(lanes) == len(asked)
    assert all(lane == "comfyui" or lane.startswith("comfyui@") for lane in lanes)


@given(names=st.lists(offers.names, min_size=1), data=st.data())
def test_the_order_of_models_and_repetitions_do_not_change_the_lane(names: list[str], data: st.DataObject):
    shuffled = data.draw(st.permutations([*names, *names]))
    assert need({"models": names}).lane == need({"models": shuffled}).lane
    assert need({"models": names}).lane == Requirement("comfyui", asked=Requirements(models=tuple(shuffled))).lane


@given(asked=offers.asked, data=st.data())
def test_the_order_of_names_does_not_change_the_lane(asked: dict[str, Any], data: st.DataObject):
    assert need(asked).lane == need(turned(asked, data)).lane


def turned(value: Any, data: st.DataObject) -> Any:
    """The same with the members of every object in another order."""
    if not isinstance(value, Mapping):
        return value
    return {key: turned(inner, data) for key, inner in data.draw(st.permutations(list(value.items())))}


@given(workers=st.lists(st.sampled_from("abc"), unique=True))
def test_the_order_in_which_workers_failed_does_not_change_the_lane(workers: list[str]):
    assert need(avoid=tuple(workers)).lane == need(avoid=tuple(reversed(workers))).lane
    assert need(not_here=tuple(workers)).lane == need(not_here=tuple(reversed(workers))).lane


@given(requirement=offers.requirements)
def test_the_canonical_text_is_read_back_as_it_was(requirement: Requirement):
    text = requirement.as_json()
    read = Requirement.from_json(text)
    assert read.as_json() == text
    assert read.lane == requirement.lane
    assert read.is_plain == requirement.is_plain
    assert Requirement.from_json(text.encode()) == read
    assert json.loads(text)["service"] == requirement.service


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"service":7}',
        '{"service":"a","pool":7}',
        '{"service":"a","avoid":"w"}',
        '{"service":"a","not_here":[7]}',
        '{"service":"a","tempo":"presto"}',
        '{"service":"a","models":[7]}',
    ],
)
def test_a_canonical_text_that_is_none_is_refused(text: str):
    with pytest.raises(ConfigError):
        Requirement.from_json(text)
