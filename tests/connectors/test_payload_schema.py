import json
from typing import Any

import pytest
from attrs import field, fields, frozen, make_class
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from emp_core.connectors.echo import EchoPayload
from emp_core.connectors.payload_fields import key_of
from emp_core.connectors.payload_schema import payload_schema
from emp_core.connectors.payloads import read_payload
from emp_core.errors import InvalidJob
from emp_core.jobs.inputs import InputRef
from tests.connectors.payload_classes import Everything, Level, Open, Picture, Text

CLASSES = [Everything, Open, Picture, Text, EchoPayload]


def is_taken(kind: type, payload: Any) -> bool:
    try:
        read_payload(kind, payload)
    except InvalidJob:
        return False
    return True


@pytest.mark.parametrize("kind", CLASSES)
def test_the_schema_is_one_by_the_rules_of_json_schema(kind: type):
    schema = payload_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_fields_are_described_with_their_types_defaults_and_limits():
    schema = payload_schema(Everything)["$defs"]["Everything"]
    told = schema["properties"]
    assert schema["description"] == "One field of each kind."
    assert schema["required"] == ["steps"]
    assert schema["additionalProperties"] is False
    assert told["steps"] == {"type": "integer", "minimum": 1, "description": "how often, in all."}
    assert told["name"] == {"type": "string", "default": "", "description": "what it is called."}
    assert told["strength"] == {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.5}
    assert told["size"] == {"enum": ["small", "large"], "default": "small"}
    assert told["level"] == {"enum": [1, 2], "default": 1}
    assert told["tags"] == {"type": "array", "items": {"type": "string", "maxLength": 3}, "default": []}
    assert told["sizes"] == {"type": "array", "items": {"type": "integer"}, "maxItems": 2, "default": []}
    assert told["weights"] == {"type": "object", "additionalProperties": {"type": "number"}, "default": {}}
    assert told["code"] == {"type": "string", "pattern": "^(?:[a-c]+)$", "default": "ab"}
    assert told["colour"]["anyOf"][0] == {"$ref": "#/$defs/Colour"}
    assert told["$options"]["description"] == "How."
    assert told["children"]["items"] == {"$ref": "#/$defs/Everything"}


def test_a_class_that_nothing_refers_to_stands_at_the_top():
    schema = payload_schema(Open)
    assert schema["title"] == "Open"
    assert schema["additionalProperties"] == {"type": "number"}
    assert "$defs" not in schema


def test_several_classes_are_alternatives():
    schema = payload_schema(Text, Open)
    Draft202012Validator.check_schema(schema)
    assert [one["$ref"] for one in schema["anyOf"]] == ["#/$defs/Text", "#/$defs/Open"]
    assert Draft202012Validator(schema).is_valid({"kind": "text", "text": "a"})
    assert Draft202012Validator(schema).is_valid({"model": "m", "other": 1})
    assert not Draft202012Validator(schema).is_valid({"other": 1})


def test_classes_of_one_name_are_told_apart():
    def other() -> type:
        @frozen
        class Text:
            own: int

        return Text

    schema = payload_schema(make_class("Both", {"one": field(type=Text), "two": field(type=other())}))
    assert schema["properties"] == {"one": {"$ref": "#/$defs/Text"}, "two": {"$ref": "#/$defs/Text2"}}
    assert schema["$defs"]["Text2"]["required"] == ["own"]


@frozen
class WithFile:
    image: InputRef
    mask: InputRef | None = None
    name: str = ""


@pytest.mark.parametrize(
    ("payload", "taken"),
    [
        ({"image": {"$input": {"url": "https://example.com/a.png"}}}, True),
        ({"image": {"$input": {"artifact": "a/b.png"}}, "mask": {"$input": {"base64": "aGk="}}}, True),
        ({"image": {"$input": {"path": "/data/a.png", "url": "https://example.com/a.png"}}}, False),
        ({"image": {"$input": {}}}, False),
        ({"image": "a.png"}, False),
        ({"image": {"$input": {"url": "https://example.com/a.png"}}, "name": {"$input": {"path": "a"}}}, False),
        ({}, False),
    ],
)
def test_files_stand_where_a_field_is_declared_as_one(payload: Any, taken: bool):
    assert is_taken(WithFile, payload) is taken
    assert Draft202012Validator(payload_schema(WithFile)).is_valid(payload) is taken


def test_the_echo_services_schema_describes_its_options():
    options = payload_schema(EchoPayload)["$defs"]["EchoOptions"]["properties"]
    assert "ServiceBusy" in options["fail"]["enum"]
    assert None in options["fail"]["enum"]
    assert options["steps"]["description"].startswith("how often it reports progress")


GOOD: dict[str, list[Any]] = {
    "steps": [1, 5.0],
    "strength": [0.5, 1e-9],
    "fast": [True],
    "nothing": [None],
    "anything": [[{}]],
    "size": ["large"],
    "level": [1, 2],
    "mode": ["a", 1, True, None],
    "seed": [0, None],
    "tags": [["a", "abc"], []],
    "pair": [[1, "x"], None],
    "sizes": [[1, 2]],
    "weights": [{"a": 1, "b": 0.5}],
    "prompt": [{"kind": "text", "text": "a"}, {"kind": "picture", "width": 4096}, {"kind": "picture"}, None],
    "either": [1, "a", [1]],
    "code": ["abc"],
    "choice": ["x", None],
    "colour": ["#0f0f0f", None],
    "$options": [{"kind": "text", "text": "a"}],
    "children": [[{"steps": 1}, {"steps": 2, "children": [{"steps": 3}]}]],
    "kind": ["text", "picture"],
    "text": ["a"],
    "width": [64],
    "model": ["m"],
    "$echo": [{}, {"seconds": 1, "steps": 3, "fail": "ServiceBusy"}, {"artifact": {"name": "a", "text": ""}}, None],
    "name": ["", "a"],
}
_ATOMS = st.sampled_from([None, True, False, 0, 2, -1, 4097, 5.0, 1.5, "", "ab", "abcd", "z", "#0f0f0g", "1"])
_NAMES = st.sampled_from([*GOOD, "odd", "seconds", "fail", "fail_attempts", "artifact"])
_VALUES = st.recursive(
    _ATOMS | st.sampled_from([one for some in GOOD.values() for one in some]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def payloads(draw: st.DrawFn, required: dict[str, Any]) -> Any:
    """A payload that fits, or nearly: most of its values are good ones."""
    names = draw(st.lists(_NAMES, max_size=6, unique=True))
    made = {name: draw(st.sampled_from(GOOD[name]) if name in GOOD else _VALUES) for name in names}
    if draw(st.booleans()):
        made[draw(_NAMES)] = draw(_VALUES)
    return {**required, **made}


VALIDATORS = {kind: Draft202012Validator(payload_schema(kind)) for kind in CLASSES}


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        (Everything, {"steps": 1}),
        (Open, {"model": "m"}),
        (Picture, {"kind": "picture"}),
        (Text, {"kind": "text", "text": "a"}),
        (EchoPayload, {}),
    ],
)
def test_the_schema_takes_what_the_class_takes_and_nothing_else(kind: type, required: dict[str, Any]):
    verdicts: set[bool] = set()

    @given(
        payloads(required)
        | payloads(required).map(lambda made: {n: v for n, v in made.items() if n in known})
        | _VALUES
    )
    def agree(payload: Any) -> None:
        taken = is_taken(kind, payload)
        verdicts.add(taken)
        assert taken is VALIDATORS[kind].is_valid(payload)

    known = {key_of(one) for one in fields(kind)}
    agree()
    assert verdicts == {True, False}


def test_enums_and_literals_tell_one_from_true():
    for payload in ({"steps": 1, "level": True}, {"steps": 1, "mode": 1}, {"steps": True}):
        assert is_taken(Everything, payload) is VALIDATORS[Everything].is_valid(payload)
    assert read_payload(Everything, {"steps": 1, "level": 1}).level is Level.LOW
