import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import field, frozen, make_class, validators

from emp_core.connectors.payloads import read_payload
from emp_core.errors import InvalidJob, PluginError
from tests.connectors.payload_classes import Between, Colour, Everything, Level, Open, Picture, Size, Text


def problems(kind: type, payload: Any) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        read_payload(kind, payload)
    assert caught.value.code == "invalid_job"
    assert all(problem in caught.value.message for problem in caught.value.details["problems"])
    found: list[str] = caught.value.details["problems"]
    return found


def test_a_payload_becomes_its_class_with_its_defaults():
    made = read_payload(Everything, {"steps": 3, "strength": 0.25, "tags": ["a"], "size": "large", "level": 2})
    assert made == Everything(3, strength=0.25, tags=("a",), size=Size.LARGE, level=Level.HIGH)
    assert isinstance(made.level, Level)


def test_what_stands_in_it_is_read_as_well():
    payload = {
        "steps": 5.0,
        "pair": [1, "x"],
        "sizes": [1, 2],
        "weights": {"a b": 1},
        "prompt": {"kind": "picture", "width": 8},
        "either": "text",
        "colour": "#0f0000",
        "$options": {"kind": "text", "text": "t"},
        "children": [{"steps": 1, "children": [{"steps": 2}]}],
        "anything": {"deep": [None]},
    }
    made = read_payload(Everything, payload)
    assert (made.steps, made.pair, made.sizes, made.weights) == (5, (1, "x"), [1, 2], {"a b": 1.0})
    assert made.prompt == Picture("picture", 8)
    assert made.options == Text("text", "t")
    assert made.children == [Everything(1, children=[Everything(2)])]
    assert isinstance(made.colour, Colour)
    assert made.colour.red == 15
    assert made.anything == {"deep": [None]}


@pytest.mark.parametrize(
    ("field_given", "says"),
    [
        ({"steps": "5"}, "payload.steps: expected a whole number, not a text"),
        ({"steps": True}, "payload.steps: expected a whole number, not a truth value"),
        ({"steps": 1.5}, "payload.steps: expected a whole number"),
        ({"steps": 0}, "payload.steps: expected 1 or more"),
        ({"name": 5}, "payload.name: expected a text, not a number"),
        ({"name": None}, "payload.name: expected a text, not null"),
        ({"strength": "0.5"}, "payload.strength: expected a number, not a text"),
        ({"strength": 1}, "payload.strength: expected less than 1"),
        ({"strength": float("nan")}, "payload.strength: expected a finite number"),
        ({"strength": 10**400}, "payload.strength: expected a finite number"),
        ({"fast": 1}, "payload.fast: expected true or false, not a number"),
        ({"nothing": 0}, "payload.nothing: expected null, not a number"),
        ({"size": "huge"}, "payload.size: expected one of small, large"),
        ({"level": True}, "payload.level: expected one of 1, 2"),
        ({"mode": "b"}, "payload.mode: expected one of a, 1, true"),
        ({"seed": -1}, "payload.seed: expected 0 or more"),
        ({"seed": "1"}, "payload.seed: expected a whole number, not a text"),
        ({"tags": "ab"}, "payload.tags: expected a list, not a text"),
        ({"tags": {"a": 1}}, "payload.tags: expected a list, not an object"),
        ({"tags": ["a", "long"]}, "payload.tags[1]: expected a length of 3 or less"),
        ({"tags": ["a", 2]}, "payload.tags[1]: expected a text, not a number"),
        ({"pair": [1]}, "payload.pair: expected a list of 2"),
        ({"pair": [1, 2]}, "payload.pair[1]: expected a text, not a number"),
        ({"sizes": [1, 2, 3]}, "payload.sizes: expected a length of 2 or less"),
        ({"weights": []}, "payload.weights: expected an object, not a list"),
        ({"weights": {"a b": "1"}}, "payload.weights['a b']: expected a number, not a text"),
        ({"prompt": {"kind": "text"}}, "payload.prompt.text: it is required"),
        ({"prompt": {"kind": "picture", "width": 0}}, "payload.prompt.width: expected 1 or more"),
        ({"prompt": {"kind": "sound"}}, "payload.prompt: fits none of Text, Picture"),
        ({"prompt": 3}, "payload.prompt: expected an object (Text) or an object (Picture), not a number"),
        ({"either": None}, "payload.either: expected a whole number or a text or a list, not null"),
        ({"either": ["x"]}, "payload.either[0]: expected a whole number, not a text"),
        ({"code": "abd"}, "payload.code: expected a text like [a-c]+"),
        ({"choice": "z"}, "payload.choice: expected one of x, y"),
        ({"colour": "red"}, "payload.colour: expected a colour like #ff0000"),
        ({"$options": {"kind": "text", "text": ""}}, "payload.$options.text: expected a length of 1 or more"),
        ({"children": [{"steps": 1}, {}]}, "payload.children[1].steps: it is required"),
    ],
)
def test_a_mistake_is_told_by_its_path_and_what_was_expected(field_given: Mapping[str, Any], says: str):
    assert problems(Everything, {"steps": 1, **field_given}) == [says]


def test_every_mistake_is_told_at_once():
    found = problems(Everything, {"name": 1, "tags": [1, "a", None], "prompt": {"kind": "text", "mood": 1}, "stepz": 1})
    assert found[:6] == [
        "payload.steps: it is required",
        "payload.name: expected a text, not a number",
        "payload.tags[0]: expected a text, not a number",
        "payload.tags[2]: expected a text, not null",
        "payload.prompt.text: it is required",
        "payload.prompt.mood: unknown; known are kind, text",
    ]
    assert found[6].startswith("payload.stepz: unknown; known are steps, name, ")
    assert len(found) == 7


def test_many_mistakes_are_counted_rather_than_told():
    found = problems(Everything, {"steps": 1, "tags": [0] * 5000})
    assert len(found) == 101
    assert found[-1] == "and 4900 more"


@pytest.mark.parametrize("payload", [None, [], "text", 5, True])
def test_a_payload_that_is_no_object_is_refused(payload: Any):
    [problem] = problems(Everything, payload)
    assert problem.startswith("payload: expected an object, not ")


def test_other_keys_are_taken_where_the_class_has_a_place_for_them():
    assert read_payload(Open, {"model": "m", "rest": 1, "temperature": 2}) == Open(
        "m", {"rest": 1.0, "temperature": 2.0}
    )
    assert read_payload(Open, {"model": "m"}) == Open("m")
    assert problems(Open, {"model": 1, "top": "x"}) == [
        "payload.model: expected a text, not a number",
        "payload.top: expected a number, not a text",
    ]


def test_what_the_class_says_of_itself_as_a_whole_is_told():
    assert problems(Between, {"first": 2, "last": 1}) == ["payload: last comes before first"]


def deeper(calls: int, reading: Callable[[], list[str]]) -> list[str]:
    return reading() if not calls else deeper(calls - 1, reading)


@pytest.mark.parametrize("calls", range(8), ids="{}-calls-deep".format)
def test_a_payload_that_is_nested_without_end_is_refused(calls: int):
    payload: dict[str, Any] = {"steps": 1}
    for _ in range(20_000):
        payload = {"steps": 1, "children": [payload]}
    [problem] = deeper(calls, lambda: problems(Everything, payload))
    assert problem.endswith("…: it is nested too deeply")
    assert len(problem) < 300


def test_values_are_repeated_nowhere():
    secret = "hunter2secret"

    @frozen
    class Login:
        number: int
        one: str = field(validator=validators.in_(["a"]))
        like: str = field(validator=validators.matches_re("a"))
        any_of: str = field(validator=validators.or_(validators.in_(["a"]), validators.in_(["b"])))
        each: Mapping[str, str] = field(
            factory=dict, validator=validators.deep_mapping(validators.instance_of(str), validators.in_(["a"]))
        )
        either: int | bool = 1

    some = problems(Login, dict.fromkeys(("number", "one", "like", "either"), secret) | {"any_of": "a"})
    assert len(some) == 4
    whole = problems(Login, {"number": 1, "one": "a", "like": "a", "any_of": secret})
    assert whole == ["payload: its validator refuses it"]
    deep = problems(Login, {"number": 1, "one": "a", "like": "a", "any_of": "a", "each": {"k": secret}})
    assert deep == ["payload: its validator refuses it"]
    assert secret not in repr((some, whole, deep))


def test_long_and_odd_names_are_shortened():
    [problem] = problems(Text, {"kind": "text", "text": "a", "x" * 5000: 1})
    assert len(problem) < 200
    assert problems(Text, {"kind": "text", "text": "a", "a.b c": 1, "": 2, "\ud800": 3}) == [
        "payload['']: unknown; known are kind, text",
        "payload['a.b c']: unknown; known are kind, text",
        "payload.\\ud800: unknown; known are kind, text",
    ]


@dataclasses.dataclass
class ADataclass:
    a: int = 1


@pytest.mark.parametrize(
    "kind",
    [set[int], bytes, datetime, Path, ADataclass, dict[int, str], frozenset, complex, Callable[[], int], list[bytes]],
)
def test_a_class_with_a_field_that_json_has_no_form_for_is_a_mistake_of_the_plugin(kind: Any):
    made = make_class("Odd", {"x": field(type=kind)})
    with pytest.raises(PluginError, match="the payload class Odd cannot be used"):
        read_payload(made, {"x": 1})


@pytest.mark.parametrize("kind", [dict, ADataclass, 3])
def test_a_payload_class_is_an_attrs_class(kind: Any):
    with pytest.raises(PluginError, match="is no attrs class"):
        read_payload(kind, {})


def test_a_type_that_is_not_there_is_a_mistake_of_the_plugin():
    made = make_class("Odd", {"x": field(type=cast("type", "NoSuchType"))})
    with pytest.raises(PluginError, match="NoSuchType"):
        read_payload(made, {"x": 1})


def test_other_keys_need_a_default():
    made = make_class("Odd", {"others": field(type=Mapping[str, Any], metadata={"rest": True})})
    with pytest.raises(PluginError, match="needs a default"):
        read_payload(made, {"x": 1})


def test_fields_without_a_type_take_anything():
    made = make_class("Loose", ["x"])
    assert read_payload(made, {"x": [1]}).x == [1]
