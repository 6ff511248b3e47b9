"""What comes out of chats, pictures and embeddings, and what is no success."""

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from emp_openai.prices import Prices
from emp_openai.testing import FakeOpenAI
from emp_openai.testing.talk import PICTURE, picture
from emp_openai.usage import usage_of

from emp_core.config import Settings
from emp_core.connectors.context import Preview
from emp_core.errors import ContentRefused, InputError, InvalidJob, JobFailed, NotRepeated
from emp_core.inputs.taking import InputTaking
from emp_core.testing.conformance.rig import RunningJob

from .rig import chat, environ_of, rigged

PAINT = {"model": "fake", "prompt": "a cat"}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


async def run(folder: Path, payload: dict[str, Any], **environ: str) -> tuple[RunningJob, FakeOpenAI]:
    async with FakeOpenAI() as server, rigged(environ_of(server, **environ), folder) as rig:
        return await rig.run(payload), server


async def data_of(folder: Path, payload: dict[str, Any], **environ: str) -> Any:
    job, _ = await run(folder, payload, **environ)
    return (await job.outcome()).data


# -- chats ---------------------------------------------------------------------------------------------------------------


async def test_a_chat_is_streamed_and_says_what_ran_it(tmp_path: Path) -> None:
    job, server = await run(tmp_path, chat("count", temperature=0.5))
    result = await job.outcome()
    assert result.data["text"] == "".join(job.context.pieces) == " one two three four five six seven eight nine ten"
    assert (result.data["model"], result.data["task"], result.data["account"]) == ("fake", "chat", "openai")
    assert result.data["finish_reason"] == "stop"
    assert server.seen[0].body == {
        "model": "fake",
        "messages": [{"role": "user", "content": "count"}],
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_prompt_is_a_message(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path, "openai_text") as rig:
        await (await rig.run({"model": "fake", "prompt": "hello"})).outcome()
    assert server.seen[0].body["messages"] == [{"role": "user", "content": "hello"}]


async def test_a_chat_that_was_cut_by_its_length_says_so(tmp_path: Path) -> None:
    data = await data_of(tmp_path, chat("forever", max_tokens=3))
    assert (data["finish_reason"], data["text"]) == ("length", " tick tock tick")


async def test_tool_calls_are_put_together(tmp_path: Path) -> None:
    data = await data_of(tmp_path, chat("weather", tools=TOOLS))
    assert data["finish_reason"] == "tool_calls"
    [call] = data["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}


@pytest.mark.parametrize(("said", "document"), [("json", {"answer": 42}), ("hello", None)])
async def test_json_that_was_asked_for_is_parsed(said: str, document: Any, tmp_path: Path) -> None:
    data = await data_of(tmp_path, chat(said, response_format={"type": "json_object"}))
    assert data["json"] == document


@pytest.mark.parametrize("word", ["refuse", "filtered"])
async def test_a_refusal_is_a_failure_with_its_own_code(word: str, tmp_path: Path) -> None:
    job, server = await run(tmp_path, chat(word, resend=True))
    assert isinstance(job.error, ContentRefused)
    assert job.error.code == "content_refused"
    assert len(server.seen) == 1


async def test_a_refused_response_is_a_failure_too(tmp_path: Path) -> None:
    job, _ = await run(tmp_path, {"model": "fake", "input": "refuse"})
    assert isinstance(job.error, ContentRefused)


@pytest.mark.parametrize("events", [1, 3])
async def test_a_stream_without_a_finish_reason_is_no_success(events: int, tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults.no_end_after = events
        async with rigged(environ_of(server), tmp_path) as rig:
            job = await rig.run(chat("count"))
    assert job.result is None
    assert isinstance(job.error, NotRepeated)
    assert (job.error.details["reason"], job.error.details["because"]) == ("incomplete", "connection_lost")


async def test_an_unfinished_response_says_why_it_ended(tmp_path: Path) -> None:
    data = await data_of(tmp_path, {"model": "fake", "input": "count, unfinished"})
    assert data["finish_reason"] == "length"


async def test_a_file_in_a_message_is_sent_in_it(tmp_path: Path) -> None:
    shown = {"$input": {"base64": picture(3), "name": "cat.png"}}
    content = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": shown}}]
    _, server = await run(tmp_path, {"model": "fake", "messages": [{"role": "user", "content": content}]})
    sent = server.seen[0].body["messages"][0]["content"][1]["image_url"]["url"]
    assert sent == f"data:image/png;base64,{picture(3)}"


# -- pictures and vectors ------------------------------------------------------------------------------------------------


async def test_pictures_are_stored_and_shown_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    previews: list[Preview] = []
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        job = rig.begin({**PAINT, "partial_images": 2, "n": 2})
        told = job.context.progress

        async def progress(fraction: float, message: str | None = None, preview: Preview | None = None) -> None:
            previews.extend([preview] if preview else [])
            await told(fraction, message, preview)

        monkeypatch.setattr(job.context, "progress", progress)
        result = await job.outcome()
    assert [one.media_type for one in previews] == ["image/png"] * 2
    assert [one.name for one in result.artifacts] == ["image-1.png", "image-2.png"]
    assert result.data["images"] == [one.url for one in result.artifacts]
    assert len({one.sha256 for one in result.artifacts}) == 2


async def test_a_picture_at_an_address_is_fetched_where_that_is_allowed(tmp_path: Path) -> None:
    payload = {"model": "fake", "prompt": "an address"}
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        refused = await rig.run(payload)
        assert isinstance(refused.error, InputError), "it leads into this machine"
        settings = Settings(data_dir=tmp_path, private_hosts=("127.0.0.1",))
        rig.inputs = InputTaking.from_settings(settings, store=rig.store)
        [artifact] = (await (await rig.run(payload)).outcome()).artifacts
    assert (artifact.name, artifact.media_type) == ("image-1.png", "image/png")


async def test_words_are_no_picture(tmp_path: Path) -> None:
    job, _ = await run(tmp_path, {"model": "fake", "prompt": "only words"})
    assert isinstance(job.error, NotRepeated)
    assert job.error.details["reason"] == "no_picture"
    allowed, _ = await run(tmp_path, {"model": "fake", "prompt": "only words", "resend": True})
    assert type(allowed.error) is JobFailed


async def test_a_blocked_prompt_is_refused_content(tmp_path: Path) -> None:
    job, server = await run(tmp_path, {"model": "fake", "prompt": "blocked"})
    assert isinstance(job.error, ContentRefused)
    assert len(server.seen) == 1


async def test_old_models_are_asked_for_base64_and_new_ones_for_previews(tmp_path: Path) -> None:
    _, server = await run(tmp_path, {**PAINT, "model": "dall-e-3", "partial_images": 1})
    assert server.seen[0].body["response_format"] == "b64_json"
    assert "stream" not in server.seen[0].body
    _, server = await run(tmp_path, {**PAINT, "partial_images": 1})
    assert server.seen[0].body["stream"] is True


@pytest.mark.parametrize("count", [1, 2])
async def test_pictures_are_edited(count: int, tmp_path: Path) -> None:
    shown = [picture(1), {"$input": {"base64": picture(2), "name": "cat.png"}}][-count:]
    payload = {
        "model": "fake",
        "prompt": "a hat",
        "image": shown if count > 1 else shown[0],
        "mask": picture(3),
        "n": 1,
    }
    job, server = await run(tmp_path, payload)
    assert len((await job.outcome()).artifacts) == 1
    body = server.seen[0].body
    assert server.seen[0].kind == "edits"
    assert (body["prompt"], body["n"], body["model"]) == ("a hat", "1", "fake")
    assert ("image[]" if count > 1 else "image") in body
    assert body["mask"] == {"name": "mask.png", "size": len(base64.b64decode(picture(3)))}


async def test_what_is_no_picture_is_not_sent_to_be_edited(tmp_path: Path) -> None:
    job, server = await run(tmp_path, {"model": "fake", "prompt": "a hat", "image": "bm8gcGljdHVyZQ=="})
    assert type(job.error) is InvalidJob
    assert server.seen == []


async def test_vectors_come_in_the_order_of_their_texts(tmp_path: Path) -> None:
    payload = {"model": "fake", "task": "embeddings", "input": ["a", "b"], "dimensions": 3}
    job, server = await run(tmp_path, payload)
    result = await job.outcome()
    assert [len(vector) for vector in result.data["embeddings"]] == [3, 3]
    assert result.usage["prompt_tokens"] == 2
    assert server.seen[0].body["dimensions"] == 3


# -- usage and cost ------------------------------------------------------------------------------------------------------


async def test_usage_and_cost_are_in_the_result(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"fake": {"input": 1.0, "output": 10.0}}), "utf-8")
    job, _ = await run(tmp_path, chat("count"), EMP_OPENAI_PRICES=str(prices))
    usage = (await job.outcome()).usage
    assert usage == {"prompt_tokens": 1, "completion_tokens": 10, "total_tokens": 11, "cost_usd": 0.000101}
    job, _ = await run(tmp_path, {"model": "fake", "input": "count"}, EMP_OPENAI_PRICES=str(prices))
    assert (await job.outcome()).usage == usage
    job, _ = await run(tmp_path, PAINT, EMP_OPENAI_PRICES=str(prices))
    assert (await job.outcome()).usage["cost_usd"] == 0.001003


TOLD = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 60},
}
TABLE = Prices({"gpt-4o": {"input": 2.5, "cached_input": 1.25, "output": 10}, "gpt-4o-2024-05-13": {"input": 5}})


def test_cached_tokens_have_a_price_of_their_own() -> None:
    usage = usage_of(TOLD, "gpt-4o", TABLE)
    assert (usage["cached_tokens"], usage["reasoning_tokens"]) == (400, 60)
    assert usage["cost_usd"] == 0.003


@pytest.mark.parametrize(
    ("model", "cost"),
    [("gpt-4o-2024-08-06", 0.003), ("gpt-4o-2024-05-13", 0.005), ("gpt-4o-mini", None), ("other", None)],
)
def test_a_name_with_a_date_means_the_one_without(model: str, cost: float | None) -> None:
    assert usage_of(TOLD, model, TABLE).get("cost_usd") == cost


def test_a_cost_that_the_server_tells_goes_first() -> None:
    assert usage_of({**TOLD, "cost": 0.5}, "gpt-4o", TABLE)["cost_usd"] == 0.5


@pytest.mark.parametrize("told", [None, [], "many", {"prompt_tokens": "many"}, {"prompt_tokens": None, "cost": True}])
def test_usage_that_cannot_be_read_is_none(told: Any) -> None:
    assert usage_of(told, "other", TABLE).get("total_tokens", 0) == 0


# -- the log -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "words"), [("hello", "asked"), ("servererror", "refused")])
async def test_the_log_names_every_request(
    said: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emp")
    await run(tmp_path, chat(said))
    [line] = [record.getMessage() for record in caplog.records if record.getMessage().startswith(words)]
    assert "req_" in line
    assert "conformance-1" in line


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chat", "responses", "edits"])
async def test_files_that_a_request_cannot_hold_are_refused_before_they_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("emp_openai.pictures._FILES_BYTES", 1000)
    picture = base64.b64encode(base64.b64decode(PICTURE) + bytes(500)).decode()
    file = {"$input": {"base64": picture, "media_type": "image/png"}}
    other = {"$input": {"base64": picture, "media_type": "image/png", "name": "other.png"}}
    parts = [{"type": "image_url", "image_url": {"url": one}} for one in (file, other)]
    payloads: dict[str, dict[str, Any]] = {
        "chat": {"messages": [{"role": "user", "content": parts}]},
        "responses": {"input": [{"role": "user", "content": parts}]},
        "edits": {"prompt": "a cat", "image": [file, other]},
    }
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run({"model": "fake", **payloads[kind]})
        assert isinstance(job.error, InputError)
        assert job.error.details["reason"] == "too_large"
        assert server.seen == []
