"""What servers once said, replayed chunk by chunk: every request ends as a person who reads the recording expects.

What is expected stands in the tables of ``docs/reference/openai-scenarios.md``, one line for every request that a job can make.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_openai.connector import OpenAIConnector

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import EmpError, InvalidJob
from emp_core.testing.conformance.rig import Rig, RunningJob
from emp_core.testing.recorded import Exchange, RecordedService, read_recording

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "openai-scenarios.md"
CHAT = "/v1/chat/completions"
ACCEPTED = {
    CHAT: "openai_text",
    "/v1/responses": "openai_responses",
    "/v1/images/generations": "openai_image",
    "/v1/images/edits": "openai_img2img",
    "/v1/embeddings": "openai_embeddings",
}
TAKEN_OVER = "/v1/responses/"
RECORDINGS = [read_recording(path) for path in sorted((HERE / "recordings").glob("*.json"))]
MODELS = {"/v1/models": {"object": "list", "data": []}}
NOT_OURS = ("no body", "broken JSON", "wrong method")
"""Requests that the connector cannot make; those without a label and a body are such, too."""
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
TOO_LONG = "a " * 9000


def requests() -> Iterator[tuple[str, int, Exchange]]:
    """Every request that a job can make: its scenario, its number there, and what was recorded."""
    for recording in RECORDINGS:
        for number, exchange in enumerate(recording.exchanges, 1):
            is_task = exchange.method == "POST" and exchange.path in ACCEPTED
            is_taken_over = exchange.method == "GET" and exchange.path.startswith(TAKEN_OVER)
            if is_taken_over or (
                is_task and exchange.label not in NOT_OURS and payload_of(recording.scenario, exchange)
            ):
                yield recording.scenario, number, exchange


def payload_of(scenario: str, exchange: Exchange) -> dict[str, Any] | None:
    """The payload of a job that makes this request; None: none does."""
    if exchange.path.startswith(TAKEN_OVER):
        return {"model": "gpt-4o", "input": "hello"}
    if isinstance(exchange.body, dict):
        return exchange.body
    if exchange.path == "/v1/images/edits":
        return {"model": "gpt-image-1", "prompt": "a hat", "image": PICTURE}
    # Long bodies were not kept; what was in them, the answers tell.
    if exchange.path == "/v1/embeddings":
        return {"model": "tiny-embed", "input": TOO_LONG}
    if "context exceeded" in exchange.label or scenario == "l03_extras":
        return {"model": "tiny-chat", "messages": [{"role": "user", "content": TOO_LONG}]}
    return None


def expected() -> dict[tuple[str, int], str]:
    """The tables: scenario and number → outcome."""
    lines = (line.split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `"))
    rows = ([cell.strip() for cell in line[1:-1]] for line in lines)
    return {(scenario.strip("`"), int(number)): outcome for scenario, number, _, outcome in rows}


CASES = [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in requests()]


def test_the_tables_have_a_line_for_every_request() -> None:
    assert expected().keys() == {(scenario, number) for scenario, number, _ in requests()}


@pytest.mark.parametrize(("scenario", "number", "exchange"), CASES)
async def test_a_recorded_request_ends_as_the_table_says(
    scenario: str, number: int, exchange: Exchange, tmp_path: Path
) -> None:
    payload = payload_of(scenario, exchange)
    assert payload is not None
    assert await outcome_of(exchange, payload, tmp_path) == expected()[scenario, number]


async def outcome_of(exchange: Exchange, payload: dict[str, Any], folder: Path) -> str:
    """What becomes of a job that makes this request, in the words of the table."""
    async with RecordedService([exchange], others=MODELS) as server, rigged(server.url, exchange.path, folder) as rig:
        run = f"{exchange.path.removeprefix(TAKEN_OVER)}@openai" if exchange.method == "GET" else None
        try:
            job = rig.begin(payload, attempt=2 if run else 1, service_job_id=run)
        except InvalidJob:
            assert not server.played
            return "refused before it is sent"
        if exchange.ends == "client":
            return await stopped(server, job, exchange)
        await job.until_ended()
        assert server.played
        assert_asked_well(server.played[0].body, exchange)
        if isinstance(job.error, EmpError):
            reason = job.error.details.get("reason")
            return f"`{job.error.code}`" + (f" ({reason})" if reason else "")
        result = await job.outcome()
        assert_holds_what_was_said(result.data, exchange)
        assert "".join(job.context.pieces) == (result.data.get("text", "") if "finish_reason" in result.data else "")
        return completed(result.data, len(result.artifacts), dict(result.usage))


async def stopped(server: RecordedService, job: RunningJob, exchange: Exchange) -> str:
    with anyio.fail_after(10):
        await server.until_sent(len(exchange.frames))
    job.scope.cancel()
    with anyio.fail_after(1):
        await server.played[0].left.wait()
    await job.until_ended()
    return "stopped: the connection is closed"


def assert_asked_well(body: bytes, exchange: Exchange) -> None:
    if exchange.method == "GET" or exchange.path == "/v1/images/edits":
        return
    sent = json.loads(body)
    if exchange.path in (CHAT, "/v1/responses"):
        assert sent["stream"] is True
    if isinstance(exchange.body, dict):
        assert sent["model"] == exchange.body["model"]


def completed(data: Any, artifacts: int, usage: dict[str, Any]) -> str:
    if "embeddings" in data:
        return f"completed: {len(data['embeddings'])} vectors"
    if "images" in data:
        return f"completed: {artifacts} pictures"
    extras = [name for name in ("thinking", "tool_calls", "logprobs", "json", "choices") if name in data]
    extras += [f"{usage['completion_tokens']} tokens"] if usage.get("completion_tokens") else []
    said = " ".join(data["text"].split())
    shown = f"“{said[:40]}…”" if len(said) > 40 else f"“{said}”"
    return ", ".join([f"completed ({data['finish_reason']}): {shown}", *extras])


def assert_holds_what_was_said(data: Any, exchange: Exchange) -> None:
    """All that was recorded is in the result, and nothing else."""
    lines = [line.removeprefix("data:") for line in "".join(exchange.frames).splitlines()]
    told = [json.loads(line) for line in lines if line.strip().startswith("{")]
    if exchange.path == CHAT:
        choices = [choice for one in told for choice in one["choices"] if choice["index"] == 0]
        said = [choice.get("delta") or choice.get("message") or {} for choice in choices]
        assert data["text"] == "".join(one.get("content") or "" for one in said)
        assert data.get("thinking", "") == "".join(one.get("reasoning") or "" for one in said)
        names = [call["function"]["name"] for one in said for call in one.get("tool_calls") or () if call.get("id")]
        assert [call["function"]["name"] for call in data.get("tool_calls", ())] == names
    elif exchange.path == "/v1/embeddings":
        assert data["embeddings"] == [one["embedding"] for one in told[0]["data"]]
    elif exchange.path == "/v1/responses":
        last = told[-1].get("response", told[-1])
        assert data["id"] == last["id"]
        assert data["text"] == "".join(part["text"] for item in last["output"] for part in item["content"])


@asynccontextmanager
async def rigged(url: str, path: str, folder: Path) -> AsyncIterator[Rig]:
    """A connector as it is when nothing but the address is set."""
    connector = OpenAIConnector(ServiceConfig("openai", {"OPENAI_BASE_URL": f"{url}/v1"}))
    async with anyio.create_task_group() as group:
        yield Rig.at(folder, connector, ACCEPTED.get(path, "openai_responses"), group)
    await connector.disconnect()
