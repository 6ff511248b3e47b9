"""Rate limits are heeded before they are met, and waits that a server asks for are kept."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import anyio
import pytest
from emp_openai.errors import wait_s
from emp_openai.limits import Allowance, duration_s
from emp_openai.testing import FakeOpenAI

from emp_core.errors import RateLimited
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.recorded import Exchange, RecordedService
from emp_core.testing.workers import WorkerStarter

from .rig import accounts, binding, chat, environ_of, rigged, until_withdrawn

HELLO = JobSpec("openai_text", chat("hello"))


class Clock:
    """Time in the test's hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(left: int | str, reset: str = "2s", limit: int = 10) -> dict[str, str]:
    return {
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        (" 7 ", 7.0),
        ("0.25", 0.25),
        ("-1", 0.0),
        ("", None),
        ("soon", None),
        ("5 s", None),
        ("1s later", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_durations_are_read_as_the_api_writes_them(text: str, seconds: float | None) -> None:
    assert duration_s(text) == seconds


def test_nothing_is_sent_between_the_last_of_a_limit_and_its_reset() -> None:
    clock = Clock()
    allowance = Allowance(clock)
    allowance.heed(told(1))
    assert allowance.wait_s == 0
    allowance.heed(told(0))
    assert allowance.wait_s == 2
    clock.now += 1.5
    assert allowance.wait_s == 0.5
    clock.now += 0.5
    assert allowance.wait_s == 0


def test_what_is_on_its_way_counts_before_its_answer_tells() -> None:
    clock = Clock()
    allowance = Allowance(clock)
    allowance.heed(told(2))
    with allowance.one():
        assert allowance.wait_s == 0
        with allowance.one():
            assert allowance.wait_s == 2
        assert allowance.wait_s == 0


def test_after_a_reset_no_more_are_sent_at_once_than_the_limit() -> None:
    clock = Clock()
    allowance = Allowance(clock)
    allowance.heed(told(0, limit=1))
    clock.now += 2
    with allowance.one():
        assert allowance.wait_s > 0
    assert allowance.wait_s == 0


def test_tokens_count_when_none_are_left() -> None:
    allowance = Allowance(Clock())
    allowance.heed({**told(5), "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6s"})
    assert allowance.wait_s == 6


@pytest.mark.parametrize("left", ["-1", "", "many"])
def test_gateways_that_do_not_know_their_limits_limit_nothing(left: str) -> None:
    allowance = Allowance(Clock())
    allowance.heed(told(left))
    allowance.heed({})
    assert allowance.wait_s == 0


def test_a_limit_that_does_not_say_when_it_ends_is_short_and_none_is_endless() -> None:
    allowance = Allowance(Clock())
    allowance.heed({"x-ratelimit-remaining-requests": "0"})
    assert allowance.wait_s == 1
    allowance.heed(told(0, reset="30d"))
    assert allowance.wait_s == 600


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_s(headers) == seconds


def test_a_date_to_wait_for_is_read_as_well() -> None:
    waited = wait_s({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert waited is not None
    assert 55 < waited <= 60


async def test_a_limit_slows_claiming_down_before_it_is_met(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI(limit=2, reset="2s") as server:
        await start_worker(binding(environ_of(server)))
        for _ in range(2):
            job = await queue.submit(HELLO)
            assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
        await until_withdrawn(queue, "rate limit")
        job = await queue.submit(HELLO)
        server.limit = 5
        done = await queue.wait(job.id, timeout=20)
        assert (done.status, done.attempt) == (JobState.COMPLETED, 1)
        assert [seen.state for seen in server.seen] == ["done"] * 3, "no request met the limit"


async def test_jobs_go_to_another_account_while_one_rests(tmp_path: Path) -> None:
    async with FakeOpenAI(limit=1, reset="60s") as first, FakeOpenAI() as second:
        environ = accounts(
            {"first": first, "second": second}, [{"priority": 1}, {"priority": 2}], EMP_OPENAI_BALANCER="priority"
        )
        async with rigged(environ, tmp_path) as rig:
            ran_at = [(await (await rig.run(chat("hello"))).outcome()).data["account"] for _ in range(3)]
        assert ran_at == ["first", "second", "second"]


async def test_another_model_of_the_same_account_goes_on_at_once(tmp_path: Path) -> None:
    async with FakeOpenAI(limit=0) as server:
        server.limited_models = ("large",)
        async with rigged(environ_of(server), tmp_path) as rig:
            began = anyio.current_time()
            data = (await (await rig.run(chat("hello", model="large", fallbacks=["small"]))).outcome()).data
            small = await (await rig.run(chat("hello", model="small"))).outcome()
            assert anyio.current_time() - began < 2, "the time that the refusal asked to wait"
    assert (data["model"], [one["code"] for one in data["tried"]]) == ("small", ["rate_limited"])
    assert small.data["finish_reason"] == "stop"
    assert [seen.body["model"] for seen in server.seen] == ["large", "small", "small"]


async def test_nobody_is_asked_twice_in_one_attempt_however_short_the_wait(tmp_path: Path) -> None:
    refusal = Exchange(
        "", "POST", "/v1/chat/completions", None, 429, {"retry-after": "0"}, ('{"error": {"message": "x"}}',), "whole"
    )
    async with RecordedService([refusal] * 3, others={"/v1/models": {"data": []}}) as server:
        environ = {"OPENAI_BASE_URL": f"{server.url}/v1"}
        async with rigged(environ, tmp_path) as rig:
            job = await rig.run(chat("hello"))
    assert isinstance(job.error, RateLimited)
    assert len(server.played) == 1


async def test_a_wait_that_the_server_asks_for_is_kept(queue: JobQueue, start_worker: WorkerStarter) -> None:
    async with FakeOpenAI() as server:
        await start_worker(binding(environ_of(server)))
        before = datetime.now(UTC)
        job = await queue.submit(JobSpec("openai_text", chat("ratelimit"), max_attempts=2))
        done = await queue.wait(job.id, timeout=30)
        assert done.status is JobState.FAILED
        assert done.error is not None
        assert done.error.code == "rate_limited"
        assert datetime.now(UTC) - before >= timedelta(seconds=2), "its Retry-After"
        assert len(server.seen) == 2


async def test_a_wait_goes_before_the_resets_of_the_same_answer(tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run(chat("ratelimit"))
        assert isinstance(job.error, RateLimited)
        assert job.error.retry_after_s == 2
