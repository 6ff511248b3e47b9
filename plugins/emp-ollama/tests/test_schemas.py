"""Answers are held against the schema that was asked for, whatever schema that is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_ollama import schemas
from emp_ollama.connector import OllamaConnector
from emp_ollama.schemas import MAX_SCHEMA_CHARS, check_schema, problems_of
from emp_ollama.testing import FakeOllama

from emp_core.errors import InvalidJob, JobFailed
from emp_core.jobs.model import JobSpec
from emp_core.testing.link import link_to

from .rigs import rigged

ANSWER = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
BOMB = {"type": "object", "properties": {"answer": {"type": "string", "pattern": "^(a+)+$"}}}
DOUBLING = {
    "$defs": {
        "d0": {"type": "object", "required": ["none"]},
        **{f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2} for n in range(1, 60)},
    },
    "$ref": "#/$defs/d59",
}


async def test_an_answer_of_the_right_form_is_read_into_the_result(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        job = await rig.run({"model": "tiny-chat", "prompt": "json", "format": ANSWER})
        data = (await job.outcome()).data
        assert (data["json"], data["text"]) == ({"answer": 42}, '{"answer": 42}')
        assert server.seen[0].body["format"] == ANSWER


@pytest.mark.parametrize(
    ("options", "error"), [({}, JobFailed), ({"temperature": 0}, InvalidJob), ({"seed": 3}, InvalidJob)]
)
async def test_an_answer_of_another_form_is_no_success_and_asked_for_again_where_that_helps(
    options: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        job = await rig.run({"model": "tiny-chat", "prompt": "wrong", "format": ANSWER, "options": options})
        assert type(job.error) is error
        assert "'answer' is a required property" in str(job.error)


@pytest.mark.parametrize(
    ("schema", "value"), [(BOMB, {"answer": "a" * 40 + "b"}), (DOUBLING, {})], ids=["regex", "references"]
)
async def test_a_schema_that_takes_for_ever_is_given_up_and_holds_up_nothing(
    schema: Mapping[str, Any], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_schema(schema)  # it looks like any other
    monkeypatch.setattr(schemas, "CHECK_LIMIT_S", 1.0)
    went_on = 0

    async def go_on() -> None:
        nonlocal went_on
        while True:
            await anyio.sleep(0.01)
            went_on += 1

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        with anyio.fail_after(5):
            with pytest.raises(InvalidJob, match="cannot be told"):
                await problems_of(value, schema)
        group.cancel_scope.cancel()
    assert went_on > 1


async def test_a_schema_that_leads_back_to_itself_is_told() -> None:
    with pytest.raises(InvalidJob, match="leads back to itself"):
        await problems_of(1, {"$ref": "#"})


async def test_nothing_that_a_schema_refers_to_is_fetched() -> None:
    async with FakeOllama() as server, link_to(server.url) as (link, url):
        for schema in ({"$ref": f"{url}/schema"}, {"$schema": f"{url}/draft", "$ref": f"{url}/schema"}):
            with pytest.raises(ValueError, match="within the schema"):
                check_schema(schema)
            with pytest.raises(InvalidJob, match="Unresolvable"):
                await problems_of(1, schema)
        assert link.connections == 0
        assert not server.requests


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "nonsense"}, "expected a JSON schema: $.type"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "'(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "'[' is not a 'regex'"),
        ({"$ref": "#/$defs/none"}, "'#/$defs/none' leads nowhere"),
        ({"$ref": "file:///etc/passwd"}, "within the schema"),
        ({"description": "x" * MAX_SCHEMA_CHARS}, "characters at most"),
        (json.loads('{"not":' * 500 + "{}" + "}" * 500), "nested so deeply"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_at_submit(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJob) as raised:
        OllamaConnector.prepare_job(JobSpec("ollama", payload={"model": "m", "prompt": "p", "format": schema}))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a/b": {"type": "integer"}}, "$ref": "#/$defs/a~1b"},
        {"items": [{"type": "integer"}], "$schema": "http://json-schema.org/draft-07/schema#"},
        {"properties": {"$ref": {"type": "string"}}},
        {"$defs": {"list": {"$anchor": "here", "type": "integer"}}, "$ref": "#here"},
    ],
)
async def test_schemas_of_all_kinds_are_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)
    value = [1] if "items" in schema else 1
    assert await problems_of(value, schema) == []
