"""What a real Ollama once said, replayed chunk by chunk: every request ends as a person who reads the recording expects.

What is expected stands in the table of ``docs/reference/ollama-scenarios.md``, one line for every request that a job can make.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_ollama.connector import OllamaConnector
from emp_ollama.payloads import PAYLOADS

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import EmpError, InvalidJob
from emp_core.testing.conformance.rig import Rig
from emp_core.testing.recorded import Exchange, RecordedService, read_recording

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "ollama-scenarios.md"
ACCEPTED = {"/api/generate": "text_generation", "/api/chat": "chat_completion", "/api/embed": "embeddings"}
PULL = "/api/pull"
RECORDINGS = [read_recording(path) for path in sorted((HERE / "recordings").glob("*.json"))]
PULLING = {"EMP_OLLAMA_PULL": "true", "EMP_OLLAMA_REGISTRIES": "127.0.0.1:5000,127.0.0.1:9,registry.ollama.ai"}
NOT_OURS = ("no body", "broken JSON", "foreign Origin is refused", "wrong method")
"""Requests that the connector cannot make."""


def requests() -> Iterator[tuple[str, int, Exchange]]:
    """Every request for an answer that a job can make: its scenario, its number there, and what was recorded."""
    for recording in RECORDINGS:
        for number, exchange in enumerate(recording.exchanges, 1):
            is_task = exchange.method == "POST" and exchange.path in ACCEPTED
            is_pull = exchange.path == PULL and not (exchange.body and exchange.body.get("stream") is False)
            if not (is_task or is_pull) or not isinstance(exchange.body, dict) or exchange.label in NOT_OURS:
                continue
            if not (exchange.cut and "format" in exchange.body):  # without its middle, a document is none
                yield recording.scenario, number, exchange


def expected() -> dict[tuple[str, int], str]:
    """The table: scenario and number → outcome."""
    lines = (line.split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `"))
    rows = ([cell.strip() for cell in line[1:-1]] for line in lines)
    return {(scenario.strip("`"), int(number)): outcome for scenario, number, _, outcome in rows}


CASES = [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in requests()]


def test_the_table_has_a_line_for_every_request() -> None:
    assert expected().keys() == {(scenario, number) for scenario, number, _ in requests()}


@pytest.mark.parametrize(("scenario", "number", "exchange"), CASES)
async def test_a_recorded_request_ends_as_the_table_says(
    scenario: str, number: int, exchange: Exchange, tmp_path: Path
) -> None:
    outcome = await (outcome_of_pull if exchange.path == PULL else outcome_of)(exchange, tmp_path)
    assert outcome == expected()[scenario, number]


async def outcome_of(exchange: Exchange, folder: Path) -> str:
    """What becomes of a job that makes this request, in the words of the table."""
    async with RecordedService([exchange]) as server, rigged(server.url, exchange.path, folder) as rig:
        try:
            job = rig.begin(payload_of(exchange))
        except InvalidJob:
            assert not server.played
            return "refused before it is sent"
        if exchange.ends == "client":
            with anyio.fail_after(10):
                await server.until_sent(len(exchange.frames))
            job.scope.cancel()
            await job.until_ended()
            with anyio.fail_after(1):
                await server.played[0].left.wait()
            return "stopped: the connection is closed"
        await job.until_ended()
        if not server.played:
            assert isinstance(job.error, InvalidJob)
            return "refused before it is sent"
        sent = json.loads(server.played[0].body)
        assert sent["model"] == exchange.body["model"]
        if exchange.path != "/api/embed":
            assert sent["stream"] is True
        if isinstance(job.error, EmpError):
            return outcome_of_error(job.error)
        result = await job.outcome()
        assert_holds_what_was_said(result.data, exchange)
        assert "".join(job.context.pieces) == result.data.get("text", "")
        return completed(result.data)


async def outcome_of_pull(exchange: Exchange, folder: Path) -> str:
    """What becomes of a job whose model is not there and is pulled so, in the words of the table."""
    missing, answer = recorded("d01_errors_request", 1), recorded("b02_generate_stream_warm", 1)
    async with (
        RecordedService([missing, exchange, answer]) as server,
        rigged(server.url, answer.path, folder, **PULLING) as rig,
    ):
        job = rig.begin({"model": exchange.body["model"], "prompt": "count"})
        if exchange.ends == "client":
            with anyio.fail_after(10):
                await server.until_sent(len(exchange.frames), request=1)
            job.scope.cancel()
            await job.until_ended()
            with anyio.fail_after(1):
                await server.played[1].left.wait()
            return "stopped: the connection is closed"
        await job.until_ended()
        assert job.context.told == sorted(job.context.told)
        if isinstance(job.error, EmpError):
            return outcome_of_error(job.error)
        return f"pulled, then {completed((await job.outcome()).data)}"


def recorded(scenario: str, number: int) -> Exchange:
    [found] = [one for one in RECORDINGS if one.scenario == scenario]
    return found.exchanges[number - 1]


def outcome_of_error(error: EmpError) -> str:
    reason = error.details.get("reason")
    return f"`{error.code}`" + (f" ({reason})" if reason else "")


async def test_what_a_server_told_of_itself_is_what_jobs_may_ask_for(tmp_path: Path) -> None:
    [identity] = [one for one in RECORDINGS if one.scenario == "a01_identity"]
    async with (
        RecordedService([one for one in identity.exchanges if one.method == "GET"]) as server,
        rigged(server.url, "/api/generate", tmp_path) as rig,
    ):
        info = await rig.connector.get_service_info()
    told = json.loads(identity.exchanges[4].frames[0])["models"]
    assert info.version == "0.33.0-rc2"
    assert info.models is not None
    assert {one["name"]: one["size"] for one in told} == {
        one["name"]: info.models[one["name"]].size_bytes for one in told
    }
    assert {name.removesuffix(":latest") for name in info.models} <= info.models.keys()


def completed(data: Any) -> str:
    if "embeddings" in data:
        return f"completed: {len(data['embeddings'])} vectors"
    extras = [name for name in ("thinking", "tool_calls", "logprobs", "json") if name in data]
    said = " ".join(data["text"].split())
    shown = f"“{said[:40]}…”" if len(said) > 40 else f"“{said}”"
    return ", ".join([f"completed ({data['finish_reason']}): {shown}", *extras])


def assert_holds_what_was_said(data: Any, exchange: Exchange) -> None:
    """All text that was recorded is in the result, and nothing else."""
    lines = [json.loads(line) for line in "".join(exchange.frames).splitlines() if line.strip()]
    if "embeddings" in data:
        assert data["embeddings"] == lines[0]["embeddings"]
        return
    frames = [line.get("message") or line for line in lines]
    assert data["text"] == "".join(frame.get("content") or frame.get("response") or "" for frame in frames)
    assert data.get("thinking", "") == "".join(frame.get("thinking") or "" for frame in frames)
    assert data.get("tool_calls", []) == [call for frame in frames for call in frame.get("tool_calls") or ()]


def payload_of(exchange: Exchange) -> dict[str, Any]:
    """The payload of a job that makes this request."""
    known = {name for kind in PAYLOADS.values() for name in kind.__annotations__} | {"model", "options", "keep_alive"}
    known |= {"stream", "format", "think", "truncate", "shift", "logprobs", "top_logprobs"}
    given = {name: value for name, value in exchange.body.items() if name in known}
    extra = {name: value for name, value in exchange.body.items() if name not in known}
    return {**given, **({"extra": extra} if extra else {})}


@asynccontextmanager
async def rigged(url: str, path: str, folder: Path, **environ: str) -> AsyncIterator[Rig]:
    """A connected connector, whose worker lets jobs choose the sizes of their models."""
    config = ServiceConfig("ollama", {"OLLAMA_HOST": url, "EMP_OLLAMA_ALLOW_RELOAD": "true", **environ})
    connector = OllamaConnector(config)
    async with anyio.create_task_group() as group:
        yield Rig.at(folder, connector, ACCEPTED[path], group)
    await connector.disconnect()
