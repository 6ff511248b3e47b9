"""The fake server answers in the shapes that were recorded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from emp_openai.testing import FakeOpenAI

from emp_core.testing.recorded import Exchange, read_recording

RECORDINGS = Path(__file__).parent / "recordings"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}


def recorded(scenario: str, number: int) -> Exchange:
    return read_recording(RECORDINGS / f"{scenario}.json").exchanges[number - 1]


def objects(text: str) -> Iterator[Any]:
    """What an answer says: its one object, or those of its events."""
    for line in text.splitlines():
        told = line.removeprefix("data:").strip()
        if told.startswith("{"):
            yield json.loads(told)


def shape(value: Any) -> Any:
    """Keys and types, without values."""
    match value:
        case dict():
            return {name: shape(one) for name, one in value.items()}
        case list():
            return [shape(value[0])] if value else []
        case _:
            return type(value).__name__


def missing(ours: Any, theirs: Any) -> list[str]:
    """The keys of a recorded object that ours lacks."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        lacking = [name for name in theirs if name not in ours]
        return lacking + [
            f"{name}.{one}" for name in theirs if name in ours for one in missing(ours[name], theirs[name])
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and theirs and ours:
        return missing(ours[0], theirs[0])
    return []


async def asked(path: str, body: Any, **headers: str) -> httpx.Response:
    async with FakeOpenAI(api_key="sk-right") as server, httpx.AsyncClient(trust_env=False) as client:
        told = {"authorization": "Bearer sk-right", **headers}
        return await client.post(f"{server.base_url}/{path}", json=body, headers=told, timeout=10)


@pytest.mark.parametrize(
    ("scenario", "number", "word"),
    [
        ("a02_errors", 3, "ratelimit"),
        ("a02_errors", 4, "quota"),
        ("a02_errors", 5, "overloaded"),
        ("a02_errors", 6, "servererror"),
        ("a03_images", 3, "blocked"),
        ("y02_errors", 5, "toolong"),
    ],
)
async def test_it_refuses_as_was_recorded(scenario: str, number: int, word: str) -> None:
    theirs = recorded(scenario, number)
    ours = await asked("chat/completions", {**CHAT, "messages": [{"role": "user", "content": word}]})
    [told] = objects("".join(theirs.frames))
    assert ours.status_code == theirs.status
    assert ours.json()["error"]["code"] == told["error"]["code"]
    if "type" in ours.json()["error"]:
        assert ours.json()["error"]["type"] == told["error"]["type"]
    for name in (name for name in theirs.headers if name == "retry-after" or name.startswith("x-ratelimit")):
        assert name in ours.headers


async def test_it_refuses_a_wrong_key_as_was_recorded() -> None:
    theirs = recorded("a02_errors", 2)
    ours = await asked("chat/completions", CHAT, authorization="Bearer sk-wrong")
    [told] = objects("".join(theirs.frames))
    assert ours.status_code == theirs.status
    assert {**ours.json()["error"], "message": ""} == {**told["error"], "message": "", "param": None}


@pytest.mark.parametrize(
    ("scenario", "number", "path", "body", "left_out"),
    [
        ("a01_chat", 1, "chat/completions", CHAT, {"choices.logprobs"}),
        ("a03_images", 1, "images/generations", {"model": "fake", "prompt": "a cat"}, set()),
        ("a04_audio_embed_moderate", 4, "embeddings", {"model": "fake", "input": ["a", "b"]}, set()),
        ("a05_responses", 1, "responses", {"model": "fake", "input": "hello"}, {"created_at", "output.id"}),
    ],
)
async def test_its_answers_have_the_recorded_keys(
    scenario: str, number: int, path: str, body: Any, left_out: set[str]
) -> None:
    [theirs] = objects("".join(recorded(scenario, number).frames))
    ours = (await asked(path, body)).json()
    assert set(missing(shape(ours), shape(theirs))) == left_out


async def test_its_chunks_come_in_the_recorded_order() -> None:
    theirs = list(objects("".join(recorded("a01_chat", 2).frames)))
    answer = await asked("chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    ours = list(objects(answer.text))
    assert ours[0]["choices"][0]["delta"] == theirs[0]["choices"][0]["delta"]
    assert [one["choices"][0]["finish_reason"] for one in ours[-2:-1]] == ["stop"]
    assert [one["choices"][0]["finish_reason"] for one in theirs[-2:-1]] == ["stop"]
    assert ours[-1]["choices"] == theirs[-1]["choices"] == []
    assert ours[-1]["usage"].keys() == theirs[-1]["usage"].keys()
    assert answer.text.rstrip().endswith("data: [DONE]")


async def test_its_events_of_a_response_are_among_the_recorded_ones_and_in_their_order() -> None:
    theirs = [one["type"] for one in objects("".join(recorded("a05_responses", 2).frames))]
    answer = await asked("responses", {"model": "fake", "input": "hello", "stream": True})
    ours = [one["type"] for one in objects(answer.text)]
    kept = [kind for kind in dict.fromkeys(theirs) if kind in ours]
    assert list(dict.fromkeys(ours)) == kept
    assert (kept[0], kept[-1]) == ("response.created", "response.completed")
