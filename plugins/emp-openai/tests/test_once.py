"""Nothing is sent twice that may have to be paid for, unless the job or the operator allows it."""

from pathlib import Path
from typing import Any

import pytest
from emp_openai.testing import FakeOpenAI

from emp_core.errors import ConnectionLost, JobFailed, NotRepeated, StorageUnavailable
from emp_core.storage.local import LocalStore
from emp_core.testing.recorded import Exchange, RecordedService

from .rig import accounts, chat, environ_of, rigged

PAINT = {"model": "fake", "prompt": "a cat"}
BROKEN = ("cut_after", "no_end_after", "error_after")


@pytest.mark.parametrize("fault", BROKEN)
async def test_an_answer_that_broke_off_is_not_asked_for_again(fault: str, tmp_path: Path) -> None:
    async with FakeOpenAI() as server, FakeOpenAI() as spare:
        setattr(server.faults, fault, 3)
        payload = chat("count", fallbacks=[{"account": "spare"}], account="first")
        async with rigged(accounts({"first": server, "spare": spare}), tmp_path) as rig:
            job = await rig.run(payload)
        assert isinstance(job.error, NotRepeated)
        assert job.error.details["because"] in ("connection_lost", "job_failed")
        assert (len(server.seen), len(spare.seen)) == (1, 0)


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_job_may_allow_to_be_sent_again(fault: str, tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        setattr(server.faults, fault, 3)
        async with rigged(environ_of(server), tmp_path) as rig:
            job = await rig.run(chat("count", resend=True))
            assert isinstance(job.error, ConnectionLost | JobFailed)
            server.faults = type(server.faults)()
            run = job.context.checkpoints[-1] if job.context.checkpoints else None
            again = await rig.run(chat("count", resend=True), attempt=2, service_job_id=run)
        assert (await again.outcome()).data["finish_reason"] == "stop"
        assert len(server.seen) == 2


async def test_a_job_may_forbid_what_the_operator_allows(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults.cut_after = 3
        async with rigged(environ_of(server, EMP_OPENAI_RESEND="true"), tmp_path) as rig:
            job = await rig.run(chat("count", resend=False))
        assert isinstance(job.error, NotRepeated)


async def test_an_account_may_allow_what_the_others_do_not(tmp_path: Path) -> None:
    async with FakeOpenAI() as house, FakeOpenAI() as hosted:
        house.faults.cut_after = hosted.faults.cut_after = 3
        environ = accounts({"house": house, "hosted": hosted}, [{"resend": True}])
        async with rigged(environ, tmp_path) as rig:
            at_home = await rig.run(chat("count", account="house"))
            away = await rig.run(chat("count", account="hosted"))
        assert type(at_home.error) is ConnectionLost
        assert type(away.error) is NotRepeated


@pytest.mark.parametrize("payload", [chat("count"), PAINT, {"model": "fake", "task": "embeddings", "input": "a"}])
async def test_the_next_attempt_knows_that_an_answer_had_begun(payload: dict[str, Any], tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        async with rigged(environ_of(server), tmp_path) as rig:
            first = await rig.run(payload)
            await first.outcome()
            [run] = first.context.checkpoints
            asked = len(server.seen)
            second = await rig.run(payload, attempt=2, service_job_id=run)
            allowed = await rig.run({**payload, "resend": True}, attempt=2, service_job_id=run)
        assert isinstance(second.error, NotRepeated)
        assert (await allowed.outcome()).data["model"] == "fake"
        assert len(server.seen) == asked + 1


async def test_nothing_is_noted_where_a_job_may_be_sent_again(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server, EMP_OPENAI_RESEND="true"), tmp_path) as rig:
        job = await rig.run(chat("count"))
        await job.outcome()
        assert job.context.checkpoints == []


async def test_what_failed_before_its_first_byte_is_not_paid_for(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults.error_after = 0
        async with rigged(environ_of(server), tmp_path) as rig:
            job = await rig.run(chat("count"))
        assert isinstance(job.error, JobFailed)
        assert job.context.checkpoints == []


@pytest.mark.parametrize(("media_type", "error"), [("application/json", NotRepeated), ("text/html", ConnectionLost)])
async def test_an_answer_that_broke_off_before_it_was_read_was_made_all_the_same(
    media_type: str, error: type[Exception], tmp_path: Path
) -> None:
    half = Exchange(
        "", "POST", "/v1/images/generations", None, 200, {"content-type": media_type}, ('{"data": [',), "broken"
    )
    async with RecordedService([half], others={"/v1/models": {"data": []}}) as server:
        async with rigged({"OPENAI_BASE_URL": f"{server.url}/v1"}, tmp_path) as rig:
            job = await rig.run(PAINT)
        assert type(job.error) is error
        assert len(server.played) == 1


async def test_a_picture_that_cannot_be_stored_is_not_painted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("the disk is full")

    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        monkeypatch.setattr(LocalStore, "put", full)
        first = await rig.run(PAINT)
        assert isinstance(first.error, StorageUnavailable)
        monkeypatch.undo()
        second = await rig.run(PAINT, attempt=2, service_job_id=first.context.checkpoints[-1])
        assert isinstance(second.error, NotRepeated)
        assert len(server.seen) == 1
