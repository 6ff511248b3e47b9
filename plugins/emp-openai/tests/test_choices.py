"""Several accounts behind one worker, and what a job goes to when the first cannot be had."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from emp_openai.connector import OpenAIConnector
from emp_openai.testing import FakeOpenAI

from emp_core.errors import AuthenticationFailed, ContentRefused, MissingModel, NotHere, ServiceUnavailable
from emp_core.testing.fake_service import FakeService

from .rig import accounts, chat, environ_of, rigged

TWO = [{"priority": 1}, {"priority": 2}]
BY_PRIORITY = {"EMP_OPENAI_BALANCER": "priority"}


class LlamaCppPython(FakeService):
    """A server of one slot, which stops its answer when anything else that it has is asked."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            told = {"id": "tiny", "object": "model", "owned_by": "me", "permissions": []}
            return web.json_response({"object": "list", "data": [told]})
        if request.path != "/v1/chat/completions":
            return web.json_response({"detail": "Not Found"}, status=404)
        async with self.job():
            choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
            return web.json_response({"id": "chatcmpl-1", "choices": [choice]})


# -- fallbacks -----------------------------------------------------------------------------------------------------------


async def test_models_are_tried_in_order_and_the_result_says_what_ran(tmp_path: Path) -> None:
    async with FakeOpenAI(models=("third",)) as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run(chat("hello", model="first", fallbacks=["second", {"model": "third"}]))
        data = (await job.outcome()).data
    assert data["model"] == "third"
    assert [(one["model"], one["code"]) for one in data["tried"]] == [
        ("first", "missing_model"),
        ("second", "missing_model"),
    ]
    assert [seen.body["model"] for seen in server.seen] == ["first", "second", "third"]
    assert any("going on with third" in message for message in job.context.messages)


@pytest.mark.parametrize("word", ["ratelimit", "quota", "overloaded", "servererror", "toolong"])
async def test_a_job_goes_on_to_another_provider(word: str, tmp_path: Path) -> None:
    async with FakeOpenAI() as first, FakeOpenAI() as second:
        first.limit, first.out_of = 0, word
        async with rigged(accounts({"first": first, "second": second}), tmp_path) as rig:
            payload = chat("hello", account="first", fallbacks=[{"account": "second", "model": "other"}])
            data = (await (await rig.run(payload)).outcome()).data
    assert (data["account"], data["model"]) == ("second", "other")
    assert [(one["account"], one["model"]) for one in data["tried"]] == [("first", "fake")]


@pytest.mark.parametrize("word", ["refuse", "filtered", "blocked"])
async def test_refused_content_goes_nowhere_else(word: str, tmp_path: Path) -> None:
    async with FakeOpenAI() as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run(chat(word, fallbacks=["other"]))
    assert isinstance(job.error, ContentRefused)
    assert len(server.seen) == 1


async def test_the_last_choices_error_is_the_jobs(tmp_path: Path) -> None:
    async with FakeOpenAI(models=("none",)) as server, rigged(environ_of(server), tmp_path) as rig:
        job = await rig.run(chat("hello", fallbacks=["other"]))
    assert isinstance(job.error, MissingModel)
    assert "`other`" in job.error.message


async def test_an_answer_that_has_begun_has_no_fallback(tmp_path: Path) -> None:
    async with FakeOpenAI() as server:
        server.faults.cut_after = 4
        async with rigged(environ_of(server, EMP_OPENAI_RESEND="true"), tmp_path) as rig:
            job = await rig.run(chat("count", fallbacks=["other"]))
    assert isinstance(job.error, ServiceUnavailable)
    assert [seen.body["model"] for seen in server.seen] == ["fake"]


# -- accounts ------------------------------------------------------------------------------------------------------------


async def test_jobs_are_spread_over_accounts_with_keys_of_their_own(tmp_path: Path) -> None:
    async with FakeOpenAI(api_key="sk-one") as one, FakeOpenAI(api_key="sk-two") as two:
        environ = accounts(
            {"one": one, "two": two}, [{"api_key": "sk-one"}, {"api_key_env": "KEY_TWO"}], KEY_TWO="sk-two"
        )
        async with rigged(environ, tmp_path) as rig:
            results = [await (await rig.run(chat("hello"))).outcome() for _ in range(4)]
    assert sorted(result.data["account"] for result in results) == ["one", "one", "two", "two"]


async def test_a_job_goes_where_its_model_is(tmp_path: Path) -> None:
    async with FakeOpenAI() as first, FakeOpenAI() as second:
        environ = accounts({"first": first, "second": second}, [{"models": ["a"]}, {"models": ["b", "c"]}])
        async with rigged(environ, tmp_path) as rig:
            ran_at = {
                model: (await (await rig.run(chat("hello", model=model))).outcome()).data["account"] for model in "abc"
            }
            nowhere = await rig.run(chat("hello", model="d"))
    assert ran_at == {"a": "first", "b": "second", "c": "second"}
    assert isinstance(nowhere.error, MissingModel)


async def test_an_account_that_is_away_costs_nothing(tmp_path: Path) -> None:
    async with FakeOpenAI() as there:
        async with FakeOpenAI() as away:
            environ = accounts({"away": away, "there": there}, TWO, **BY_PRIORITY)
        async with rigged(environ, tmp_path) as rig:
            assert (await rig.connector.check_health()).ok
            assert (await (await rig.run(chat("hello"))).outcome()).data["account"] == "there"


async def test_a_job_may_name_its_account(tmp_path: Path) -> None:
    async with FakeOpenAI() as first, FakeOpenAI() as second:
        environ = accounts({"first": first, "second": second}, TWO, **BY_PRIORITY)
        async with rigged(environ, tmp_path) as rig:
            named = await rig.run(chat("hello", account="second"))
            unknown = await rig.run(chat("hello", account="third"))
    assert (await named.outcome()).data["account"] == "second"
    assert isinstance(unknown.error, NotHere)


async def test_an_account_gets_no_more_jobs_at_once_than_it_has_slots(tmp_path: Path) -> None:
    async with FakeOpenAI() as small, FakeOpenAI() as large:
        environ = accounts({"small": small, "large": large}, [{"models": ["fake"], "slots": 2}, {"models": ["b"]}])
        async with rigged(environ, tmp_path) as rig:
            assert rig.connector.max_concurrent_jobs == 10
            small.hold()
            jobs = [rig.begin(chat(f"hello {number}")) for number in range(5)]
            with anyio.fail_after(10):
                await small.until_running(2)
                await anyio.wait_all_tasks_blocked()
            assert small.begun == 2
            small.release()
            for job in jobs:
                await job.outcome()
            assert small.begun == 5


async def test_a_server_that_a_second_request_interrupts_gets_one_at_a_time(tmp_path: Path) -> None:
    async with LlamaCppPython() as server:
        async with rigged({"OPENAI_BASE_URL": f"{server.url}/v1"}, tmp_path) as rig:
            assert rig.connector.max_concurrent_jobs == 1
            server.hold()
            jobs = [rig.begin(chat(f"hello {number}", model="tiny")) for number in range(2)]
            with anyio.fail_after(10):
                await server.until_running(1)
            assert (await rig.connector.check_health()).ok
            await anyio.wait_all_tasks_blocked()
            assert server.begun == 1
            server.release()
            for job in jobs:
                assert (await job.outcome()).data["text"] == "hi"
        assert server.requests.count("GET /v1/models") == 1, "afterwards it is asked for what it does not have"


async def test_somebody_may_know_better_how_many_jobs_such_a_server_takes(tmp_path: Path) -> None:
    async with LlamaCppPython() as server:
        environ = {"EMP_OPENAI_ACCOUNTS": json.dumps([{"name": "a", "base_url": f"{server.url}/v1", "slots": 3}])}
        async with rigged(environ, tmp_path) as rig:
            assert rig.connector.max_concurrent_jobs == 3


async def test_accounts_are_told_without_their_keys(tmp_path: Path) -> None:
    async with FakeOpenAI(api_key="sk-hidden") as server:
        environ = accounts({"one": server}, [{"api_key": "sk-hidden"}])
        async with rigged(environ, tmp_path) as rig:
            connector = rig.connector
            assert isinstance(connector, OpenAIConnector)
            shown: list[Any] = [await connector.get_service_info(), await connector.check_health(), connector.accounts]
            shown += [connector.settings, connector.config, connector.accounts["one"].account, connector.pool.states()]
            server.api_key = "sk-other"
            job = await rig.run(chat("hello"))
            assert isinstance(job.error, AuthenticationFailed)
            shown += [job.error, json.dumps(job.error.as_dict()), job.context.messages]
    assert "one" in repr(shown)
    assert "sk-hidden" not in "".join(map(repr, shown)) + "".join(map(str, shown))
