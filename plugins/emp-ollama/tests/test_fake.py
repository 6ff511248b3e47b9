"""The fake server answers as the real one did when it was recorded."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_ollama.testing import FakeOllama

from emp_core.errors import EmpError, InvalidJob
from emp_core.testing.recorded import Exchange

from .test_recordings import PULL, completed, expected, outcome_of_error, payload_of, requests, rigged

OTHERWISE = {
    "b10_repeat_abort": "a model that repeats itself is one that was made so: FakeModel.repeats_itself",
    "h01_queue_full": "its queue is as long as that of a server that nobody set up",
    "h02_runner_killed": "nobody kills its model: FakeModel.runner_dies_after does",
}


def same() -> Any:
    """The requests that depend on nothing but themselves, and were answered to their end."""
    for scenario, number, exchange in requests():
        if exchange.path != PULL and exchange.ends != "client" and scenario not in OTHERWISE:
            yield pytest.param(scenario, number, exchange, id=f"{scenario}-{number}")


@pytest.mark.parametrize(("scenario", "number", "exchange"), list(same()))
async def test_a_request_ends_on_the_fake_as_it_did_on_the_real_one(
    scenario: str, number: int, exchange: Exchange, tmp_path: Path
) -> None:
    async with FakeOllama() as server, rigged(server.url, exchange.path, tmp_path) as rig:
        assert await outcome_of(rig, server, exchange) == expected()[scenario, number]


async def outcome_of(rig: Any, server: FakeOllama, exchange: Exchange) -> str:
    try:
        job = rig.begin(payload_of(exchange))
    except InvalidJob:
        return "refused before it is sent"
    with anyio.fail_after(20):
        await job.until_ended()
    if isinstance(job.error, EmpError):
        return outcome_of_error(job.error) if server.seen else "refused before it is sent"
    return completed((await job.outcome()).data)
