"""A response in the background outlives its worker: the next attempt takes it over, and nothing is begun twice."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from attrs import evolve
from emp_openai.testing import FakeOpenAI, Faults

from emp_core.errors import ConnectionLost, JobFailed, NotRepeated
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.processes import worker_process
from emp_core.testing.time_lapse import TimeLapse
from emp_core.testing.workers import WorkerStarter

from .rig import Gate, binding, chat, environ_of, rigged

LEASE_S = 2.0
COUNT = {"model": "fake", "input": "count"}
RESPONSE = JobSpec("openai_responses", COUNT)
SAID = " one two three four five six seven eight nine ten"


def worker_of(queue: JobQueue, name: str, server: FakeOpenAI) -> AbstractAsyncContextManager[Process]:
    """A worker in a process of its own."""
    return worker_process(evolve(queue.settings, lease_s=LEASE_S), "openai", name, environ_of(server))


async def until_text(queue: JobQueue, job_id: str) -> None:
    """Wait until the job puts out text: by then, its run's id was stored long ago."""
    with anyio.fail_after(30):
        async for event in queue.events(job_id):
            if event.name == "text":
                return
    raise AssertionError(f"{job_id} ended without a text")


async def test_a_killed_workers_response_is_taken_over_by_another_worker(queue: JobQueue) -> None:
    gate = Gate(3)
    async with FakeOpenAI(pause=gate) as server, worker_of(queue, "victim", server) as victim:
        job = await queue.submit(RESPONSE)
        await until_text(queue, job.id)
        [run] = server.responses
        victim.kill()
        async with worker_of(queue, "heir", server):
            await server.until(lambda: server.followed == [run], 30)
            gate.open()
            done = await queue.wait(job.id, timeout=30)
        assert (done.status, done.worker_id, done.attempt) == (JobState.COMPLETED, "heir@test", 2)
        assert [seen.kind for seen in server.seen] == ["responses"], "the server saw one creation"
        assert done.result is not None
        assert done.result["data"]["id"] == run
        assert done.result["data"]["text"] == SAID
        assert server.cancelled == []


async def test_a_killed_workers_chat_is_not_sent_again(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI(pause=Gate(4)) as server, worker_of(queue, "victim", server) as victim:
        job = await queue.submit(JobSpec("openai_text", chat("count")))
        await until_text(queue, job.id)
        victim.kill()
        await start_worker(binding(environ_of(server)))
        done = await queue.wait(job.id, timeout=30)
        assert done.status is JobState.FAILED
        assert done.error is not None
        assert done.error.code == "not_repeated"
        assert len(server.seen) == 1


async def test_a_worker_that_ends_leaves_its_response_to_the_next(queue: JobQueue, start_worker: WorkerStarter) -> None:
    gate = Gate(3)
    async with FakeOpenAI(pause=gate) as server:
        first = await start_worker(binding(environ_of(server)), name="first")
        job = await queue.submit(RESPONSE)
        await until_text(queue, job.id)
        await first.end()
        await start_worker(binding(environ_of(server)), name="second")
        await server.until(lambda: len(server.followed) == 1)
        gate.open()
        done = await queue.wait(job.id, timeout=10)
        assert (done.status, done.worker_id) == (JobState.COMPLETED, "second@test")
        assert ([seen.kind for seen in server.seen], server.cancelled) == (["responses"], [])


async def test_a_stream_that_breaks_off_is_followed_on_where_it_broke(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults.cut_after = 5
        async with rigged(environ_of(server), tmp_path) as rig:
            job = rig.begin(COUNT)
            await server.until(lambda: len(server.followed) >= 1)
            server.faults.cut_after = None
            result = await job.outcome()
        assert result.data["text"] == "".join(job.context.pieces) == SAID
        assert [seen.kind for seen in server.seen] == ["responses"]


async def test_a_server_that_cannot_be_asked_for_a_while_loses_no_response(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults = Faults(cut_after=5, looks_in_vain=3)
        async with rigged(environ_of(server), tmp_path) as rig:
            job = rig.begin(COUNT)
            await server.until(lambda: server.faults.looks_in_vain == 0)
            server.faults.cut_after = None
            assert (await job.outcome()).data["text"] == SAID
            server.faults = Faults(cut_after=5, looks_in_vain=100)
            given_up = await rig.run(COUNT)
            assert type(given_up.error) is JobFailed, "not lost: another attempt can take it over"
            server.faults = Faults()
            again = await rig.run(COUNT, attempt=2, service_job_id=given_up.context.checkpoints[-1])
            assert (await again.outcome()).data["text"] == SAID
        assert [seen.kind for seen in server.seen] == ["responses"] * 2


async def test_a_response_that_is_not_known_everywhere_yet_is_not_given_up(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        server.faults = Faults(cut_after=3, looks_unknown=2)
        job = await rig.run(COUNT)
        assert (await job.outcome()).data["text"] == SAID
        assert [seen.kind for seen in server.seen] == ["responses"]


async def test_a_response_that_the_server_forgot_is_begun_again_only_where_that_is_allowed(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        lost = await rig.run(COUNT, attempt=2, service_job_id="resp_gone@openai")
        assert isinstance(lost.error, NotRepeated)
        assert server.seen == []
        again = await rig.run({**COUNT, "resend": True}, attempt=2, service_job_id="resp_gone@openai")
        assert (await again.outcome()).data["text"] == SAID


async def test_a_response_that_failed_before_it_said_anything_is_begun_again_by_the_next_attempt(
    tmp_path: Path,
) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        failed = await rig.run({"model": "fake", "input": "fail"})
        assert type(failed.error) is JobFailed
        again = await rig.run(COUNT, attempt=2, service_job_id=failed.context.checkpoints[-1])
        assert (await again.outcome()).data["text"] == SAID
        assert len(server.seen) == 2


async def test_a_response_that_failed_after_it_cost_something_is_begun_again_only_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    payload = {"model": "fake", "input": "collapse"}
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        failed = await rig.run(payload)
        assert isinstance(failed.error, NotRepeated)
        assert failed.error.details["because"] == "job_failed"
        allowed = await rig.run({**payload, "resend": True})
        assert type(allowed.error) is JobFailed
        run = allowed.context.checkpoints[-1]
        again = await rig.run({**COUNT, "resend": True}, attempt=2, service_job_id=run)
        assert (await again.outcome()).data["text"] == SAID


async def test_a_model_may_think_for_long(tmp_path: Path) -> None:
    gate = Gate(0)
    async with FakeOpenAI(pause=gate) as server:
        async with rigged(environ_of(server, EMP_OPENAI_SILENCE_S="5"), tmp_path) as rig:
            job = rig.begin(COUNT)
            await server.until(lambda: bool(server.responses))
            passed_s = await TimeLapse.here().until(job.ended.is_set, most_s=60)
            assert passed_s >= 60
            gate.open()
            assert (await job.outcome()).data["text"] == SAID
        assert (len(server.seen), server.cancelled) == (1, [])


async def test_a_response_that_stays_queued_for_ever_is_given_up_and_cancelled(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.hold()
        async with rigged(environ_of(server, EMP_OPENAI_SILENCE_S="5"), tmp_path) as rig:
            job = rig.begin(COUNT)
            await server.until_running(1)
            await job.until_ended_in_time_lapse(300)
            assert isinstance(job.error, JobFailed)
            assert job.error.details["reason"] == "stuck"
            assert server.cancelled == list(server.responses)


@pytest.mark.parametrize("background", [True, False])
async def test_a_server_without_background_gives_its_answer_all_the_same(background: bool, tmp_path: Path) -> None:
    async with FakeOpenAI(background=False) as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run({**COUNT, "background": background})
        assert (await job.outcome()).data["text"] == SAID
        assert server.followed == []


@pytest.mark.parametrize(("resend", "error"), [(False, NotRepeated), (True, ConnectionLost)])
async def test_a_response_without_background_is_lost_with_its_connection(
    resend: bool, error: type[Exception], tmp_path: Path
) -> None:
    async with FakeOpenAI(background=False) as server:
        server.faults.cut_after = 5
        async with rigged(environ_of(server), tmp_path) as rig:
            job = await rig.run({**COUNT, "resend": resend})
        assert type(job.error) is error
        assert len(server.seen) == 1


async def test_a_job_may_do_without_background(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path, "openai_responses") as rig:
        job = await rig.run({**COUNT, "background": False})
        assert (await job.outcome()).data["text"] == SAID
        assert server.responses == {}
        assert "background" not in server.seen[0].body
