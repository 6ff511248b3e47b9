"""What becomes of jobs on one server: what is sent, what comes back, and what goes wrong in the middle."""

import base64
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_ollama.connector import OllamaConnector
from emp_ollama.testing import FakeModel, FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import (
    ConnectionLost,
    EmpError,
    InputError,
    InvalidJob,
    JobFailed,
    NotHere,
    OutOfMemory,
    ServiceBusy,
)
from emp_core.jobs.model import JobSpec
from emp_core.testing.link import link_to

from .rigs import Gate, rigged

COUNT = {"model": "tiny-chat", "prompt": "count"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def chat(word: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny-chat", "messages": [{"role": "user", "content": word}], **more}


# -- what comes back ---------------------------------------------------------------------------------------------


async def test_an_answer_is_put_out_while_it_is_made_and_whole_in_the_result(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        job = await rig.run({**COUNT, "options": {"num_predict": 20}})
        result = await job.outcome()
        assert result.data["text"] == "".join(job.context.pieces) == " one two three four five six seven eight nine ten"
        assert (result.data["finish_reason"], result.data["model"]) == ("stop", "tiny-chat")
        assert job.context.told == sorted(job.context.told)
        assert 0 < job.context.told[-1] <= 1
        assert server.seen[0].body["stream"] is True


async def test_thinking_is_kept_apart(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        job = await rig.run(chat("think", think="high"))
        data = (await job.outcome()).data
        assert (data["text"], data["thinking"]) == ("done.", "pondering quietly")
        assert job.context.pieces == ["done."]
        assert server.seen[0].body["think"] == "high"


async def test_tools_that_the_model_asks_for_are_in_the_result(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        data = (await (await rig.run(chat("weather", tools=[WEATHER]))).outcome()).data
        assert data["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
        assert server.seen[0].body["tools"] == [WEATHER]
        refused = await rig.run({**chat("weather", tools=[WEATHER]), "model": "tiny-plain"})
        assert isinstance(refused.error, InvalidJob)
        assert "does not support tools" in refused.error.message


async def test_tokens_and_durations_are_the_usage(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        usage = (await (await rig.run(COUNT)).outcome()).usage
        assert usage is not None
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 11, 13)
        assert usage["loading_ms"] == 520.0
        assert usage["total_ms"] > 0
        vectors = await (await rig.run({"model": "tiny-embed", "input": ["a", "b"]})).outcome()
        assert vectors.usage is not None
        assert vectors.usage["prompt_tokens"] == 6


async def test_a_server_tells_what_it_has_what_that_takes_and_what_is_in_memory(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        before = (await rig.connector.get_service_info()).models
        assert before is not None
        assert before["tiny-slow"] == before["tiny-slow:latest"]
        assert (before["tiny-slow"].size_bytes, before["tiny-slow"].loaded) == (350_000_000, False)
        assert before["tiny-slow"].load_ms > before["tiny-chat"].load_ms
        await (await rig.run(COUNT)).outcome()
        after = await rig.connector.get_service_info()
        assert after.models is not None
        assert after.models["tiny-chat"].loaded
        assert after.models["tiny-chat"].load_ms == 520.0, "as long as the last load took"
        assert not after.models["tiny-slow"].loaded
        shown = {one["name"]: one for one in after.details["models"]}
        assert shown["tiny-chat:latest"]["context_length"] == 4096
        assert shown["tiny-vision:latest"]["capabilities"] == ["completion", "vision"]


# -- what is sent ------------------------------------------------------------------------------------------------


async def test_pictures_are_sent_as_base64_wherever_they_come_from(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        by_reference = {"$input": {"base64": PIXEL}}
        message = {"role": "user", "content": "hello", "images": [by_reference, PIXEL]}
        await (await rig.run({"model": "tiny-vision", "messages": [message]})).outcome()
        await (await rig.run({"model": "tiny-vision", "prompt": "hello", "images": [by_reference]})).outcome()
        assert server.seen[0].body["messages"][0]["images"] == [PIXEL, PIXEL]
        assert server.seen[1].body["images"] == [PIXEL]


async def test_pictures_that_a_request_cannot_hold_are_refused_before_they_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emp_ollama.connector._PICTURES_BYTES", 100)
    pictures = [{"$input": {"base64": PIXEL, "name": name}} for name in ("a.png", "b.png")]
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        one = await rig.run({"model": "tiny-vision", "prompt": "hello", "images": pictures[:1]})
        both = await rig.run({"model": "tiny-vision", "prompt": "hello", "images": pictures})
        assert one.error is None
        assert isinstance(both.error, InputError)
        assert both.error.details["reason"] == "too_large"
        assert len(server.seen) == 1


async def test_what_is_no_picture_is_not_sent(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        words = {"$input": {"base64": base64.b64encode(b"only words").decode()}}
        payload = {"model": "tiny-vision", "prompt": "hello", "images": [words]}
        assert isinstance((await rig.run(payload)).error, InputError)
        assert not server.seen
        for address in ("https://example.com/cat.png", "data:image/png;base64,AAAA"):
            with pytest.raises(InvalidJob, match="expected base64 alone"):
                rig.begin({"model": "tiny-vision", "prompt": "hello", "images": [address]})


@pytest.mark.parametrize(
    ("asked", "setting", "sent"),
    [
        (None, None, None),
        ("10m", None, "10m"),
        (None, "30m", "30m"),
        (0, "30m", 0),
        (None, "-1", -1),
        ("300", None, 300),
    ],
)
async def test_how_long_a_model_stays_is_said_by_the_job_or_else_by_the_worker(
    asked: Any, setting: str | None, sent: Any, tmp_path: Path
) -> None:
    settings = {"EMP_OLLAMA_KEEP_ALIVE": setting} if setting else {}
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url, **settings}) as rig:
        await (await rig.run({**COUNT, **({} if asked is None else {"keep_alive": asked})})).outcome()
        assert server.seen[0].body.get("keep_alive") == sent


async def test_an_empty_prompt_loads_the_model_and_nothing_else(tmp_path: Path) -> None:
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url}) as rig:
        data = (await (await rig.run({"model": "tiny-slow", "prompt": ""})).outcome()).data
        assert (data["text"], data["finish_reason"]) == ("", "load")
        assert server.runners.loads == ["tiny-slow:latest"]
        data = (await (await rig.run({"model": "tiny-slow", "prompt": "", "keep_alive": 0})).outcome()).data
        assert data["finish_reason"] == "unload"
        assert not server.runners.loaded


# -- sizes -------------------------------------------------------------------------------------------------------


async def test_jobs_of_all_sizes_leave_a_model_as_it_was_loaded(tmp_path: Path) -> None:
    environ = {"EMP_OLLAMA_OPTIONS": '{"num_ctx": 8192, "num_gpu": 4}'}
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url, **environ}) as rig:
        for options in ({}, {"num_ctx": 2048}, {"num_ctx": 8192, "temperature": 0.1}, {"num_gpu": 4}):
            await (await rig.run({**COUNT, "options": options})).outcome()
        assert server.runners.loads == ["tiny-chat:latest"]
        assert {one.body["options"]["num_ctx"] for one in server.seen} == {8192}
        assert (await rig.connector.get_service_info()).capabilities == {"ollama_num_ctx": 8192}


@pytest.mark.parametrize("asked", [{"options": {"num_ctx": 16384}}, {"options": {"num_gpu": 1}}, {"shift": False}])
async def test_a_job_that_would_load_its_model_again_is_for_another_worker(asked: Any, tmp_path: Path) -> None:
    environ = {"EMP_OLLAMA_OPTIONS": '{"num_ctx": 8192}'}
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url, **environ}) as rig:
        job = await rig.run({**COUNT, **asked})
        assert isinstance(job.error, NotHere)
        assert "EMP_OLLAMA_OPTIONS" in job.error.message
        assert not server.seen


async def test_a_worker_may_let_jobs_choose_their_sizes(tmp_path: Path) -> None:
    environ = {"EMP_OLLAMA_ALLOW_RELOAD": "true", "EMP_OLLAMA_OPTIONS": '{"num_ctx": 8192, "shift": false}'}
    async with FakeOllama() as server, rigged(tmp_path, {"OLLAMA_HOST": server.url, **environ}) as rig:
        await (await rig.run({**COUNT, "options": {"num_ctx": 16384}, "shift": True})).outcome()
        assert (server.seen[0].body["options"], server.seen[0].body["shift"]) == ({"num_ctx": 16384}, True)
        await (await rig.run(COUNT)).outcome()
        assert (server.seen[1].body["options"], server.seen[1].body["shift"]) == ({"num_ctx": 8192}, False)
        assert server.runners.loads == ["tiny-chat:latest"] * 2
        assert (await rig.connector.get_service_info()).capabilities == {"ollama_num_ctx": None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"options": {"num_ctx": "8192"}},
        {"options": {"use_mmap": 1}},
        {"options": {"shift": False}},
        {"extra": {"options": {"num_ctx": 99999}}},
        {"extra": {"format": "json"}},
        {"extra": {"stream": False}},
    ],
)
def test_sizes_cannot_be_smuggled_in(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        OllamaConnector.prepare_job(JobSpec("ollama", payload={**COUNT, **wrong}))


# -- what goes wrong ---------------------------------------------------------------------------------------------


async def failure(model: FakeModel, folder: Path, **faults: Any) -> tuple[EmpError, list[str]]:
    """How a job fails on a server where this goes wrong, and what it had put out."""
    async with FakeOllama({"m:latest": model}) as server, rigged(folder, {"OLLAMA_HOST": server.url}) as rig:
        for name, value in faults.items():
            setattr(server.faults, name, value)
        job = await rig.run({"model": "m", "prompt": "count"})
        assert job.result is None
        assert isinstance(job.error, EmpError)
        return job.error, job.context.pieces


async def test_a_model_whose_process_dies_in_mid_answer_is_worth_another_try(tmp_path: Path) -> None:
    error, pieces = await failure(FakeModel(runner_dies_after=3), tmp_path)
    assert isinstance(error, ConnectionLost)
    assert "unexpected EOF" in error.message
    assert len(pieces) == 3


async def test_a_connection_that_breaks_in_mid_answer_is_no_success(tmp_path: Path) -> None:
    error, pieces = await failure(FakeModel(), tmp_path, drop_after=4)
    assert isinstance(error, ConnectionLost)
    assert len(pieces) <= 4


async def test_a_stream_without_its_last_frame_is_no_success(tmp_path: Path) -> None:
    error, pieces = await failure(FakeModel(repeats_itself=True), tmp_path)
    assert isinstance(error, JobFailed)
    assert error.details["reason"] == "incomplete"
    assert len(pieces) == 10


async def test_something_else_than_json_in_mid_answer_is_no_success(tmp_path: Path) -> None:
    error, _ = await failure(FakeModel(), tmp_path, garbage_after=2)
    assert isinstance(error, JobFailed)
    assert error.details["reason"] == "garbage"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, '{"error":"server busy, please try again.  maximum pending requests exceeded"}', ServiceBusy),
        (500, '{"error":"model requires more system memory (40 GiB) than is available (8 GiB)"}', OutOfMemory),
        (500, '{"error":"llama runner process has terminated: signal: killed"}', ConnectionLost),
        (500, '{"error":"llama runner process has terminated: error loading model: unknown architecture"}', JobFailed),
        (500, '{"error":"unable to load model: /models/blobs/sha256-00"}', JobFailed),
        (500, '{"error":"option \\"temperature\\" must be of type float32"}', InvalidJob),
        (500, '{"error":"something nobody has seen yet"}', JobFailed),
        (400, '{"error":"{\\"error\\":{\\"message\\":\\"request exceeds the available context size\\"}}"}', InvalidJob),
    ],
)
async def test_errors_are_told_by_their_texts(status: int, body: str, kind: type[EmpError], tmp_path: Path) -> None:
    error, _ = await failure(FakeModel(), tmp_path, status=status, body=body)
    assert type(error) is kind


async def test_a_server_that_falls_silent_in_mid_answer_is_given_up(tmp_path: Path) -> None:
    gate = Gate()
    gate.stop("frame", after=3)
    async with FakeOllama(pause=gate) as server, link_to(server.url) as (link, url):
        environ = {"OLLAMA_HOST": url, "EMP_OLLAMA_STALL_S": "20"}
        async with rigged(tmp_path, environ) as rig:
            job = rig.begin(COUNT)
            await server.until(lambda: bool(server.seen) and server.seen[0].frames == 3)
            link.fall_silent()
            passed_s = await job.until_ended_in_time_lapse(most_s=120)
            assert isinstance(job.error, ConnectionLost)
            assert passed_s < 60


async def test_a_job_that_waits_long_for_its_turn_is_not_given_up_while_the_server_lives(tmp_path: Path) -> None:
    async with FakeOllama() as server:
        environ = {"OLLAMA_HOST": server.url, "EMP_OLLAMA_STALL_S": "20", "EMP_OLLAMA_SILENCE_S": "20"}
        async with rigged(tmp_path, environ) as rig:
            server.hold()
            job = rig.begin(COUNT)
            await server.until_running(1)
            passed_s = await job.until_ended_in_time_lapse(most_s=300)
            assert passed_s >= 300
            assert not job.ended.is_set()
            server.release()
            with anyio.fail_after(10):
                assert (await job.outcome()).data["finish_reason"] == "stop"


async def test_models_come_only_from_registries_that_are_known(tmp_path: Path) -> None:
    async with FakeOllama(registry={"10.0.0.5:8443/some/model:latest": FakeModel()}) as server:
        environ = {"OLLAMA_HOST": server.url, "EMP_OLLAMA_PULL": "true"}
        payload = {"model": "10.0.0.5:8443/some/model", "prompt": "count"}
        async with rigged(tmp_path, environ) as rig:
            job = await rig.run(payload)
            assert isinstance(job.error, EmpError)
            assert job.error.code == "missing_model"
            assert "none are pulled from 10.0.0.5:8443" in job.error.message
            assert "POST /api/pull" not in server.requests
        async with rigged(tmp_path, {**environ, "EMP_OLLAMA_REGISTRIES": "10.0.0.5:8443"}) as rig:
            assert (await (await rig.run(payload)).outcome()).data["text"].startswith(" one")


def test_a_connector_shows_no_key() -> None:
    connector = OllamaConnector(ServiceConfig("ollama", {"OLLAMA_API_KEY": "very-secret"}))
    assert "very-secret" not in repr(connector.settings)
    assert "very-secret" not in connector.endpoint
