"""Models that are missing are pulled when that is allowed: with progress, resumed where an earlier pull ended."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_ollama.connector import OllamaConnector
from emp_ollama.pulling import PullProgress
from emp_ollama.testing import FakeModel, FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConnectionLost, EmpError, InvalidJob, JobFailed, MissingModel
from emp_core.testing.conformance.rig import Rig
from emp_core.testing.recorded import Exchange, read_recording

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(scenario: str, label: str) -> Exchange:
    [found] = [one for one in read_recording(RECORDINGS / f"{scenario}.json").exchanges if one.label == label]
    return found


def told(exchange: Exchange) -> tuple[PullProgress, list[float]]:
    """All lines of a recorded pull, taken, and how far it was after each."""
    progress = PullProgress("tiny", endpoint="http://ollama")
    fractions = []
    for line in "".join(exchange.frames).splitlines():
        progress.take(json.loads(line))
        fractions.append(progress.fraction)
    return progress, fractions


@pytest.mark.parametrize(
    ("scenario", "label"),
    [
        ("i01_pull", "pull, nothing here yet"),
        ("i01_pull", "pull again, everything here"),
        ("i01_pull", "pull, stream=false"),
        ("i02_pull_cancel_resume", "resumes where the first stopped"),
    ],
)
def test_recorded_pulls_end_well(scenario: str, label: str) -> None:
    progress, fractions = told(recorded(scenario, label))
    progress.prove()
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)


def test_a_recorded_pull_that_was_broken_off_is_no_success() -> None:
    progress, fractions = told(recorded("i02_pull_cancel_resume", "client leaves after 6 s"))
    assert 0 < fractions[-1] < 1
    with pytest.raises(ConnectionLost):
        progress.prove()


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ("not in the registry", MissingModel),
        ("registry unreachable", JobFailed),
        ("http registry without insecure", JobFailed),
        ("public registry, no network", JobFailed),
        ("malformed name", InvalidJob),
    ],
)
def test_recorded_pulls_that_fail_say_why(label: str, error: type[EmpError]) -> None:
    with pytest.raises(error):
        told(recorded("i03_pull_errors", label))


@pytest.fixture
async def server() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(registry={"big:latest": FakeModel()}) as server:
        yield server


async def rig_at(server: FakeOllama, folder: Path, group: Any, **settings: str) -> Rig:
    connector = OllamaConnector(ServiceConfig("ollama", {"OLLAMA_HOST": server.url, **settings}))
    return Rig.at(folder, connector, "ollama", group)


async def test_a_missing_model_is_named_and_not_pulled_unasked(server: FakeOllama, tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        rig = await rig_at(server, tmp_path, group)
        job = await rig.run({"model": "big", "prompt": "count"})
        assert isinstance(job.error, MissingModel)
        assert job.error.details["model"] == "big"
        assert "POST /api/pull" not in server.requests
        assert (await rig.connector.get_service_info()).other_models is None
        await rig.connector.disconnect()


async def test_a_missing_model_is_pulled_and_used_where_that_is_allowed(server: FakeOllama, tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        rig = await rig_at(server, tmp_path, group, EMP_OLLAMA_PULL="true")
        assert (await rig.connector.get_service_info()).other_models is not None
        job = await rig.run({"model": "big", "prompt": "count"})
        assert (await job.outcome()).data["text"].split()[:2] == ["one", "two"]
        assert any(message.startswith("pulling big") for message in job.context.messages)
        assert job.context.told == sorted(job.context.told)
        assert "big" in ((await rig.connector.get_service_info()).models or {})
        await rig.connector.disconnect()


async def test_a_pull_goes_on_where_an_earlier_one_was_stopped(tmp_path: Path) -> None:
    steps: list[str] = []
    go_on = anyio.Event()

    async def pause(what: str) -> None:
        steps.append(what)
        if steps.count("pull") == 4:
            await go_on.wait()

    async with (
        FakeOllama(registry={"big:latest": FakeModel()}, pause=pause) as server,
        anyio.create_task_group() as group,
    ):
        rig = await rig_at(server, tmp_path, group, EMP_OLLAMA_PULL="true")
        stopped = rig.begin({"model": "big", "prompt": "count"})
        await server.until(lambda: steps.count("pull") == 4)
        stopped.scope.cancel()
        await stopped.until_ended()
        got = server.pulled_bytes["big:latest"]
        assert 0 < got < server.registry["big:latest"].size_bytes
        go_on.set()
        job = await rig.run({"model": "big", "prompt": "count"})
        await job.outcome()
        assert steps.count("pull") <= 11  # ten steps in all, one of them twice
        await rig.connector.disconnect()
