"""Several servers behind one worker: jobs go where their model is, and on elsewhere when a server fails."""

from pathlib import Path
from typing import Any

import pytest
from emp_ollama.connector import OllamaConnector
from emp_ollama.several import OllamaHostsConnector
from emp_ollama.testing import FakeModel, FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, ConnectionLost, JobFailed, MissingModel, NotHere, ServiceUnavailable
from emp_core.jobs.model import JobSpec
from emp_core.testing.link import link_to

from .rigs import Gate, hosts_of, rigged

COUNT = {"model": "tiny-chat", "prompt": "count"}
BROKEN = FakeModel(broken='tensor "blk.0.attn_q.weight" offset+size exceeds file size')


def tiny(*names: str, model: FakeModel | None = None) -> dict[str, FakeModel]:
    return {f"{name}:latest": model or FakeModel() for name in names}


async def test_a_job_goes_where_its_model_is(tmp_path: Path) -> None:
    async with FakeOllama(tiny("one")) as a, FakeOllama(tiny("two")) as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        for _ in range(3):
            done = await (await rig.run({"model": "two", "prompt": "count"})).outcome()
            assert done.data["server"] == "b"
        assert not a.seen
        info = await rig.connector.get_service_info()
        assert info.models is not None
        assert {"one", "two"} <= info.models.keys()
        assert info.models["two"].loaded
        assert not info.models["one"].loaded
        assert [one["name"] for one in info.details["servers"]["b"]["models"]] == ["two:latest"]


async def test_a_server_that_has_the_model_in_memory_goes_first(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        first = await (await rig.run(COUNT)).outcome()
        later = [(await (await rig.run(COUNT)).outcome()).data["server"] for _ in range(4)]
        assert later == [first.data["server"]] * 4
        assert sorted([*a.runners.loads, *b.runners.loads]) == ["tiny-chat:latest"]


async def test_a_free_server_goes_before_one_that_is_busy(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        a.hold()
        b.hold()
        jobs = [rig.begin(COUNT), rig.begin(COUNT)]
        await a.until_running(1)
        await b.until_running(1)
        a.release()
        b.release()
        assert {(await job.outcome()).data["server"] for job in jobs} == {"a", "b"}


async def test_a_model_that_no_server_has_is_missing_everywhere(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        job = await rig.run({"model": "nope", "prompt": "count"})
        assert isinstance(job.error, MissingModel)
        assert "a, b" in job.error.message
        assert not a.seen
        assert not b.seen
        b.models["nope:latest"] = FakeModel()  # installed meanwhile: it is asked again before it is said to be missing
        assert (await (await rig.run({"model": "nope", "prompt": "count"})).outcome()).data["server"] == "b"


async def test_a_model_that_no_server_has_is_pulled_where_that_is_allowed(tmp_path: Path) -> None:
    registry = tiny("big")
    async with FakeOllama(registry=registry) as a, FakeOllama(registry=registry) as b:
        environ = {**hosts_of(a=a, b=b), "EMP_OLLAMA_PULL": "true"}
        async with rigged(tmp_path, environ) as rig:
            first = await (await rig.run({"model": "big", "prompt": "count"})).outcome()
            again = await (await rig.run({"model": "big", "prompt": "count"})).outcome()
            assert again.data["server"] == first.data["server"]
            assert [*a.requests, *b.requests].count("POST /api/pull") == 1


async def test_a_server_that_is_gone_loses_a_job_that_said_nothing_yet_to_another(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b, link_to(a.url) as (link, url):
        environ = hosts_of(a={"host": url, "priority": 1}, b={"host": b.url, "priority": 2})
        async with rigged(tmp_path, environ) as rig:
            a.hold()
            job = rig.begin(COUNT)
            await a.until_running(1)
            await link.go_down()
            assert (await job.outcome()).data["server"] == "b"
            health = await rig.connector.check_health()
            assert health.ok, "one server is left"
            assert rig.connector.max_concurrent_jobs == 1


async def test_text_that_was_put_out_is_not_begun_again_elsewhere(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        a.faults.drop_after = b.faults.drop_after = 3
        job = await rig.run(COUNT)
        assert isinstance(job.error, ConnectionLost)
        assert len(a.seen) + len(b.seen) == 1


async def test_a_broken_copy_of_a_model_sends_the_job_to_a_good_one(tmp_path: Path) -> None:
    async with FakeOllama(tiny("m", model=BROKEN)) as a, FakeOllama(tiny("m")) as b:
        environ = hosts_of(a={"host": a.url, "priority": 1}, b={"host": b.url, "priority": 2})
        async with rigged(tmp_path, environ) as rig:
            job = await rig.run({"model": "m", "prompt": "count"})
            assert (await job.outcome()).data["server"] == "b"
            assert any("trying another server" in message for message in job.context.messages)


async def test_a_model_that_is_broken_everywhere_fails_with_what_the_last_one_said(tmp_path: Path) -> None:
    models = tiny("m", model=BROKEN)
    async with FakeOllama(models) as a, FakeOllama(models) as b, rigged(tmp_path, hosts_of(a=a, b=b)) as rig:
        job = await rig.run({"model": "m", "prompt": "count"})
        assert isinstance(job.error, JobFailed)
        assert "exceeds file size" in job.error.message
        assert (len(a.seen), len(b.seen)) == (1, 1)


async def test_a_server_that_is_busy_loading_hands_the_job_on(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b:
        a.faults.status, a.faults.body = (
            503,
            '{"error":"server busy, please try again.  maximum pending requests exceeded"}',
        )
        environ = hosts_of(a={"host": a.url, "priority": 1}, b={"host": b.url, "priority": 2})
        async with rigged(tmp_path, environ) as rig:
            assert (await (await rig.run(COUNT)).outcome()).data["server"] == "b"


async def test_jobs_go_to_servers_whose_models_are_large_enough(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b:
        environ = hosts_of(
            a={"host": a.url, "options": {"num_ctx": 4096}}, b={"host": b.url, "options": {"num_ctx": 32768}}
        )
        async with rigged(tmp_path, environ) as rig:
            for _ in range(3):
                done = await (await rig.run({**COUNT, "options": {"num_ctx": 16000}})).outcome()
                assert done.data["server"] == "b"
            assert {one.body["options"]["num_ctx"] for one in b.seen} == {32768}
            assert b.runners.loads == ["tiny-chat:latest"]
            job = await rig.run({**COUNT, "options": {"num_ctx": 64000}})
            assert isinstance(job.error, NotHere)
            assert (await rig.connector.get_service_info()).capabilities == {"ollama_num_ctx": 32768}


async def test_without_any_server_the_service_is_not_there(tmp_path: Path) -> None:
    async with FakeOllama() as a, FakeOllama() as b:
        environ = hosts_of(a=a, b=b)
    with pytest.raises(ServiceUnavailable) as raised:
        async with rigged(tmp_path, environ):
            raise AssertionError("nobody is there")
    assert "a: " in raised.value.message
    assert "b: " in raised.value.message


async def test_each_server_has_a_key_of_its_own(tmp_path: Path) -> None:
    async with FakeOllama(api_key="first") as a, FakeOllama(api_key="second") as b:
        environ = hosts_of(
            a={"host": a.url, "api_key": "first"}, b={"host": b.url, "api_key_env": "KEY_OF_B", "priority": 2}
        )
        async with rigged(tmp_path, {**environ, "KEY_OF_B": "second"}) as rig:
            assert rig.connector.max_concurrent_jobs == 2
            assert "first" not in repr(rig.connector.__dict__)
        with pytest.raises(ConfigError, match="KEY_OF_B"):
            OllamaHostsConnector(ServiceConfig("ollama", environ))


async def test_a_job_that_is_cancelled_is_stopped_on_its_server(tmp_path: Path) -> None:
    gate = Gate()
    gate.stop("frame", after=3)
    async with FakeOllama(pause=gate) as a, rigged(tmp_path, hosts_of(a=a)) as rig:
        job = rig.begin(COUNT)
        await a.until(lambda: bool(a.seen) and a.seen[0].frames == 3)
        job.scope.cancel()
        await job.until_ended()
        await a.until(lambda: a.seen[0].state == "cancelled", timeout_s=1)
        assert job.let_go


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ('[{"name": "a"}]', "[0].host: missing"),
        ('[{"host": "a", "colour": "red"}, {"host": 5}]', "[0].colour: unknown"),
        ('[{"host": "a", "colour": "red"}, {"host": 5}]', "[1].host: expected a text"),
        ('[{"host": "a", "slots": 0}]', "[0].slots: expected a whole number of 1 or more"),
        ('[{"host": "a", "priority": true}]', "[0].priority"),
        ('[{"host": "ftp://a"}]', "[0]: expected a host"),
        ('[{"host": "a", "options": {"temperature": 1}}]', "[0]: expected only num_ctx"),
        ('[{"host": "a", "options": {"num_ctx": "many"}}]', "[0]: expected a whole number for num_ctx"),
        ("[{", "expected addresses, or a JSON list"),
        ("a,b,a", "a is there twice"),
        ("a,http://a:11434", "http://a:11434 is there twice"),
    ],
)
def test_mistakes_in_the_list_of_servers_are_told_with_their_place(hosts: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OllamaConnector.for_service(ServiceConfig("ollama", {"EMP_OLLAMA_HOSTS": hosts}))
    assert said in str(raised.value.problems)


def test_addresses_may_stand_in_a_row() -> None:
    connector = OllamaConnector.for_service(ServiceConfig("ollama", {"EMP_OLLAMA_HOSTS": "gpu1, https://gpu2/ollama"}))
    assert isinstance(connector, OllamaHostsConnector)
    told = {one.name: one.url for one in connector.pool.endpoints}
    assert told == {"gpu1": "http://gpu1:11434", "https://gpu2/ollama": "https://gpu2/ollama"}


def sized(**options: Any) -> JobSpec:
    return OllamaConnector.prepare_job(JobSpec("ollama", payload={**COUNT, "options": options}))


def test_a_job_says_what_length_of_context_its_worker_must_have() -> None:
    requirements = sized(num_ctx=16000).requirements
    assert requirements is not None
    assert requirements.capabilities == {"ollama_num_ctx": 16000}
    assert requirements.models == ("tiny-chat:latest",)
