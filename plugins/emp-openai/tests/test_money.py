"""Accounts without money, and keys that are refused: the account rests, the operator is told, and no attempt is burnt."""

import logging
from pathlib import Path

import anyio
import pytest
from emp_openai.testing import FakeOpenAI

from emp_core.errors import AuthenticationFailed, QuotaExhausted
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import WorkerStarter

from .rig import accounts, binding, chat, environ_of, rigged, until_withdrawn


async def until_released(queue: JobQueue, job_id: str) -> None:
    with anyio.fail_after(20):
        async for event in queue.events(job_id):
            if event.name == "released":
                return


@pytest.mark.parametrize("word", ["quota", "unpaid"])
async def test_an_account_without_money_rests_and_the_operator_is_told(
    word: str, queue: JobQueue, start_worker: WorkerStarter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emp")
    async with FakeOpenAI() as server:
        await start_worker(binding(environ_of(server)))
        job = await queue.submit(JobSpec("openai_text", chat(word), max_attempts=1))
        await until_withdrawn(queue, "answered POST /chat/completions with")
        await until_released(queue, job.id)
        waiting = await queue.get(job.id)
        assert (waiting.status, waiting.attempt) == ("pending", 0)
        later = await queue.submit(JobSpec("openai_text", chat("hello")))
        assert (await queue.get(later.id)).status == "pending"
        assert len(server.seen) == 1
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert any("the service refuses us" in record.getMessage() for record in told)
    assert any("quota_exhausted" in record.getMessage() for record in told)


async def test_another_account_goes_on_when_one_has_no_money(tmp_path: Path) -> None:
    async with FakeOpenAI() as poor, FakeOpenAI() as rich:
        environ = accounts(
            {"poor": poor, "rich": rich}, [{"priority": 1}, {"priority": 2}], EMP_OPENAI_BALANCER="priority"
        )
        async with rigged(environ, tmp_path) as rig:
            poor.limit, poor.out_of = 0, "quota"
            results = [await (await rig.run(chat("hello"))).outcome() for _ in range(3)]
        assert [result.data["account"] for result in results] == ["rich"] * 3
        assert (len(poor.seen), len(rich.seen)) == (1, 3), "the poor one was asked once"


async def test_a_job_that_comes_while_the_account_rests_is_not_blamed(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        first = await rig.run(chat("quota"))
        second = await rig.run(chat("hello"))
        assert isinstance(first.error, QuotaExhausted)
        assert isinstance(second.error, QuotaExhausted)
        assert len(server.seen) == 1


async def test_a_key_that_is_refused_withdraws_the_service_before_a_job_is_claimed(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeOpenAI(api_key="sk-right") as server:
        await start_worker(binding(environ_of(server, OPENAI_API_KEY="sk-wrong")))
        await until_withdrawn(queue, "401")
        job = await queue.submit(JobSpec("openai_text", chat("hello")))
        assert (await queue.get(job.id)).status == "pending"
        assert server.seen == []


async def test_a_key_that_is_refused_later_costs_no_attempt(tmp_path: Path) -> None:
    async with FakeOpenAI(api_key="sk-right") as server:
        async with rigged(environ_of(server, OPENAI_API_KEY="sk-right"), tmp_path) as rig:
            assert (await (await rig.run(chat("hello"))).outcome()).data["finish_reason"] == "stop"
            server.api_key = "sk-new"
            job = await rig.run(chat("hello"))
            await rig.connector.check_health()
            later = await rig.run(chat("hello"))
        assert isinstance(job.error, AuthenticationFailed)
        assert isinstance(later.error, AuthenticationFailed), "nobody is away: the key is refused"
        assert "sk-right" not in str(job.error)
