import json
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import anyio
import pytest

from emp_core import errors
from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext, Preview
from emp_core.connectors.echo import EchoConnector
from emp_core.errors import ConnectorError, InvalidJob, RateLimited
from emp_core.jobs.codec import decode_job
from emp_core.storage.interface import StoredObject
from emp_core.storage.local import LocalStore


class MemoryStore(LocalStore):
    """Takes outputs, and gives nothing back."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.files: dict[str, bytes] = {}

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: str,
        overwrite: bool = False,
        retention: str | None = None,
    ) -> StoredObject:
        assert isinstance(data, bytes)
        self.files[key] = data
        return StoredObject(key, f"memory:{key}", media_type, len(data), "")


class Bench:
    """One echo job, with all that it tells."""

    def __init__(self, payload: Any, attempt: int = 1) -> None:
        self.store = MemoryStore()
        self.told: list[tuple[float, str | None]] = []
        fields = {"service_required": "echo", "status": "active", "attempt": str(attempt)}
        self.job = decode_job("job-1", fields, json.dumps(payload))
        self.connector = EchoConnector(ServiceConfig("echo"))

    def report(self, percent: float, message: str | None, preview: Preview | None) -> None:
        self.told.append((percent, message))

    async def checkpoint(self, service_job_id: str) -> None:
        raise AssertionError("echo keeps no checkpoint")

    async def run(self) -> Any:
        context = JobContext(
            self.job,
            store=self.store,
            report=self.report,
            save_checkpoint=self.checkpoint,
            payload=self.connector.payload_of(self.job),
        )
        return await self.connector.process_job(self.job, context)


async def test_the_payload_comes_back_as_data():
    assert (await Bench({"hello": 1, "deep": {"list": [1, None]}}).run()).data == {
        "hello": 1,
        "deep": {"list": [1, None]},
    }


@pytest.mark.parametrize("payload", [[1, 2], "hello", None, 3])
async def test_a_payload_that_is_no_object_is_refused(payload: Any):
    with pytest.raises(InvalidJob, match="payload: expected an object"):
        await Bench(payload).run()


async def test_progress_is_reported_step_by_step_and_the_options_are_not_given_back():
    bench = Bench({"a": 1, "$echo": {"seconds": 0.01, "steps": 4}})
    assert (await bench.run()).data == {"a": 1}
    assert bench.told == [
        (25.0, "step 1 of 4"),
        (50.0, "step 2 of 4"),
        (75.0, "step 3 of 4"),
        (100.0, "step 4 of 4"),
    ]


@pytest.mark.parametrize(
    "name", [n for n in errors.__all__ if issubclass(getattr(errors, n), ConnectorError) and n != "ConnectorError"]
)
async def test_every_failure_of_a_service_can_be_asked_for(name: str):
    with pytest.raises(getattr(errors, name)) as caught:
        await Bench({"$echo": {"fail": name}}).run()
    assert type(caught.value).__name__ == name


async def test_a_failure_can_be_asked_for_the_first_attempts_only():
    options = {"$echo": {"fail": "ServiceBusy", "fail_attempts": 2}, "a": 1}
    for attempt in (1, 2):
        with pytest.raises(errors.ServiceBusy):
            await Bench(options, attempt).run()
    assert (await Bench(options, 3).run()).data == {"a": 1}


async def test_a_rate_limit_tells_how_long_to_wait():
    with pytest.raises(RateLimited) as caught:
        await Bench({"$echo": {"fail": "RateLimited", "retry_after_s": 2.5}}).run()
    assert caught.value.retry_after_s == 2.5


async def test_an_artifact_is_stored():
    bench = Bench({"$echo": {"artifact": {"name": "notes/hello.txt", "text": "hellö"}}})
    [artifact] = (await bench.run()).artifacts
    assert artifact.name == "hello.txt"
    assert artifact.media_type == "text/plain; charset=utf-8"
    assert list(bench.store.files.values()) == ["hellö".encode()]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "$echo: expected an object, not a list"),
        ({"second": 1}, "$echo.second: unknown"),
        ({"seconds": -1}, "$echo.seconds: expected 0 or more"),
        ({"seconds": 1e9}, "$echo.seconds: expected 86400.0 or less"),
        ({"seconds": "1"}, "$echo.seconds: expected a number, not a text"),
        ({"seconds": True}, "$echo.seconds: expected a number, not a truth value"),
        ({"seconds": float("nan")}, "$echo.seconds: expected a finite number"),
        ({"seconds": 10**400}, "$echo.seconds: expected a finite number"),
        ({"steps": 0}, "$echo.steps: expected 1 or more"),
        ({"steps": 1.5}, "$echo.steps: expected a whole number"),
        ({"fail": "Boom"}, "$echo.fail: expected one of"),
        ({"fail": "ConfigError"}, "$echo.fail: expected one of"),
        ({"fail": 3}, "$echo.fail: expected a text, not a number"),
        ({"fail_attempts": 0}, "$echo.fail_attempts: expected 1 or more"),
        ({"retry_after_s": "soon"}, "$echo.retry_after_s: expected a number, not a text"),
        ({"artifact": "x"}, "$echo.artifact: expected an object, not a text"),
        ({"artifact": {"name": "x"}}, "$echo.artifact.text: it is required"),
        ({"artifact": {"name": "", "text": ""}}, "$echo.artifact.name: expected a length of 1 or more"),
        ({"artifact": {"name": "../x", "text": ""}}, "$echo.artifact: its name cannot be used"),
        ({"artifact": {"name": "x", "text": "", "size": 1}}, "$echo.artifact.size: unknown"),
    ],
)
async def test_options_that_cannot_be_used_fail_the_job_with_their_path(options: Any, says: str):
    with pytest.raises(InvalidJob) as caught:
        await Bench({"$echo": options}).run()
    assert f"payload.{says}" in str(caught.value)


async def test_all_mistakes_of_the_options_are_told_at_once():
    with pytest.raises(InvalidJob) as caught:
        await Bench({"$echo": {"seconds": -1, "steps": 0, "fail": "Boom", "extra": 1}}).run()
    assert len(caught.value.details["problems"]) == 4


async def test_a_cancelled_job_stops_at_once():
    bench = Bench({"$echo": {"seconds": 86_400, "steps": 10_000}})
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(bench.run)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert bench.told == []


async def test_many_jobs_run_at_once():
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(EchoConnector.max_concurrent_jobs):
                group.start_soon(Bench({"$echo": {"seconds": 0.1, "steps": 1}}).run)
    assert EchoConnector.max_concurrent_jobs == 64


async def test_it_is_always_well_and_tells_its_version():
    connector = EchoConnector(ServiceConfig("echo"))
    assert (await connector.check_health()).ok
    assert (await connector.get_service_info()).version == EchoConnector.version
