"""`emp comfyui servers`: the real command, against fake servers."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from attrs import evolve, frozen
from emp_comfyui.cluster.settings import ClusterSettings
from emp_comfyui.cluster.synchronous import SyncComfyUIServerPool
from emp_comfyui.commands.looking import look
from emp_comfyui.commands.showing import listing, watch_servers

from emp_core.cli.main import run
from emp_core.config import Settings, variables_of
from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import WorkerStarter

from .clusters import fakes
from .rig import slow_image
from .test_cluster_sync import Elsewhere
from .test_cluster_worker import cluster_of, until_checkpoint


@frozen
class Ended:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        document = json.loads(self.out)
        assert document["ok"], document
        return document["data"]

    @property
    def error(self) -> Any:
        return json.loads(self.out)["error"]


Servers = Callable[..., Ended]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """None of the user's settings, and logging as it was before."""
    for variable in (*variables_of(Settings), *variables_of(ClusterSettings)):
        for name in (variable.name, *variable.aliases):
            monkeypatch.delenv(name, raising=False)

    def have(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    have({"EMP_DATA_DIR": str(tmp_path / "data"), "EMP_COMFYUI_CHECK_TIMEOUT_S": "3"})
    loggers = [logging.getLogger(name) for name in (None, "emp", "emp.endpoints", "emp.comfyui")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield have
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def servers(environ: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Servers:
    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run(["comfyui", "servers", *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        yield Elsewhere(portal, stack.enter_context(portal.wrap_async_context_manager(fakes("a", "b"))))


@pytest.fixture
def cluster(elsewhere: Elsewhere, environ: Callable[..., None], tmp_path: Path) -> Elsewhere:
    environ(elsewhere.fakes.environ(tmp_path))
    return elsewhere


def test_each_server_has_a_line_with_its_state_queue_and_memory(cluster: Elsewhere, servers: Servers) -> None:
    cluster.fakes["a"].devices = [{"type": "cuda", "name": "A GPU", "vram_total": 24 * 10**9, "vram_free": 3 * 10**9}]
    cluster.portal.call(cluster.fakes["b"].kill)
    shown = servers()
    heading, a, b, trouble = (" ".join(line.split()) for line in shown.out.splitlines())
    assert shown.code == 0
    assert heading == "SERVER ADDRESS STATE PRIORITY RUNNING WAITING RUNS NOW GPU MEMORY"
    assert a == f"a {cluster.fakes['a'].url} online 1 0 0 3.0 GB of 24.0 GB free"
    assert b == f"b http://127.0.0.1:{cluster.fakes['b'].port} offline 1"
    assert trouble.startswith("b: nothing answers")


def test_json_tells_all_that_is_known(cluster: Elsewhere, servers: Servers, tmp_path: Path) -> None:
    told = servers("--json").data
    assert told["source"] == "NUKE_COMFYUI_SERVERS"
    assert told["changes"] is None
    assert [server["name"] for server in told["servers"]] == ["a", "b"]
    assert told["servers"][0] == {
        "name": "a",
        "url": cluster.fakes["a"].url,
        "priority": 1,
        "enabled": True,
        "slots": 1,
        "status": "online",
        "reason": None,
        "running": 0,
        "waiting": 0,
        "prompts": [],
        "memory_free_bytes": None,
        "memory_total_bytes": None,
        "devices": ["cpu"],
        "version": "0.3.64",
    }


async def test_what_runs_is_named_by_its_job_and_by_its_prompt_where_the_queue_does_not_know_it(
    queue: JobQueue,
    start_worker: WorkerStarter,
    environ: Callable[..., None],
    emp_settings: Settings,
    tmp_path: Path,
) -> None:
    async with fakes("a", "b") as running:
        described = running.environ(tmp_path)
        environ(described)
        hold = running["a"].hold("ProbeSlow", at_step=2)
        await start_worker(cluster_of(described))
        job = await queue.submit(JobSpec("comfyui", payload={"prompt": slow_image(4), "server": "a"}))
        await hold.reached()
        await until_checkpoint(queue, job.id)
        found = await look(emp_settings)
        of_nobody = await look(evolve(emp_settings, redis_url=None))
        hold.release()
        await queue.wait(job.id, timeout=60)
        prompt_id = running["a"].prompts[0].prompt_id
    [prompt] = found.as_dict()["servers"][0]["prompts"]
    assert (prompt["prompt_id"], prompt["job_id"]) == (prompt_id, job.id)
    assert job.id in listing(found)
    assert of_nobody.as_dict()["servers"][0]["prompts"] == [{"prompt_id": prompt_id, "job_id": None, "progress": None}]
    assert f"prompt {prompt_id}" in listing(of_nobody)


@pytest.mark.parametrize("terminal", [False, True])
async def test_they_are_shown_again_and_again_until_somebody_has_seen_enough(
    environ: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    terminal: bool,
) -> None:
    monkeypatch.setattr("emp_comfyui.commands.showing._AGAIN_S", 0.01)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    async with fakes("a", "b") as running, anyio.create_task_group() as group:
        environ(running.environ(tmp_path))
        group.start_soon(watch_servers, Settings.from_env(), False)
        await running["b"].until(lambda: len(running["b"].requested("/system_stats")) >= 3)
        await running["a"].kill()
        await running["b"].until(lambda: len(running["b"].requested("/system_stats")) >= 6)
        group.cancel_scope.cancel()
    shown = capsys.readouterr().out
    assert shown.count("online") > shown.count("a: nothing answers") > 0


def test_a_server_that_is_disabled_shows_the_jobs_that_it_has_still(
    cluster: Elsewhere, servers: Servers, tmp_path: Path
) -> None:
    hold = cluster.fakes["a"].hold("ProbeSlow", at_step=2)
    with SyncComfyUIServerPool.from_env(cluster.fakes.environ(tmp_path)) as pool:
        running = pool.start(slow_image(), server="a")
        cluster.portal.call(hold.reached)
        servers("disable", "a")
        [a, _] = servers("--json").data["servers"]
        line = servers().out.splitlines()[1]
        cluster.portal.call(hold.release)
        running.result(20)
        [drained, _] = servers("--json").data["servers"]
    assert (a["status"], a["enabled"], a["running"]) == ("disabled", False, 1)
    assert f"prompt {a['prompts'][0]['prompt_id']}" in line
    assert (drained["status"], drained["running"]) == ("disabled", 0)


def test_servers_are_added_changed_and_removed(cluster: Elsewhere, servers: Servers, tmp_path: Path) -> None:
    def names() -> list[str]:
        return [server["name"] for server in servers("--json").data["servers"]]

    file = tmp_path / "changes.json"
    added = servers("add", "c", "127.0.0.1:9", "--priority", "2", "--dir-local", "U:/", "--disabled", "--json").data
    assert added == {
        "name": "c",
        "ip": "127.0.0.1",
        "port": 9,
        "priority": 2,
        "enabled": False,
        "dir_local": "U:/",
        "changes": str(file),
    }
    assert names() == ["a", "b", "c"]
    assert servers("disable", "a").out.startswith("a is disabled: programs that read ")
    assert servers("priority", "b", "3", "--json").data["priority"] == 3
    assert servers("enable", "c", "--json").data["enabled"] is True
    assert [server["status"] for server in servers("--json").data["servers"]] == ["disabled", "online", "offline"]
    servers("remove", "c")
    servers("remove", "a")
    assert names() == ["b"]
    assert servers("reset", "--json").data == {"changes": str(file), "removed": True}
    assert names() == ["a", "b"]
    assert servers("reset").out == "nothing was changed\n"


def test_a_server_that_is_added_again_has_nothing_of_the_one_that_was_removed(
    cluster: Elsewhere, servers: Servers
) -> None:
    servers("priority", "a", "7")
    servers("remove", "a")
    servers("add", "a", "127.0.0.1:9")
    [_, again] = sorted(servers("--json").data["servers"], key=lambda server: str(server["name"]), reverse=True)
    assert (again["url"], again["priority"]) == ("http://127.0.0.1:9", 1)


def test_the_last_server_can_be_disabled_and_enabled_again(cluster: Elsewhere, servers: Servers) -> None:
    servers("remove", "b")
    assert servers("disable", "a").code == 0
    assert [server["status"] for server in servers("--json").data["servers"]] == ["disabled"]
    assert servers("enable", "a").code == 0
    assert [server["status"] for server in servers("--json").data["servers"]] == ["online"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("disable", "z"), "there is no server 'z'"),
        (("remove", "z"), "there is no server 'z'"),
        (("add", "a", "127.0.0.1:9"), "there is a server 'a' already"),
        (("add", "c", "127.0.0.1:x"), "'x' is no port"),
        (("add", "c", "127.0.0.1:99999"), "c.port: expected 1 to 65535, not 99999"),
        (("add", "c", "http://127.0.0.1:8188"), "expected an IP address or a host name"),
        (("priority", "a", "0"), "a.priority: expected 1 to 1000000, not 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    cluster: Elsewhere, servers: Servers, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    ended = servers(*arguments, "--json")
    assert ended.code == 2
    assert said in json.dumps(ended.error, ensure_ascii=False)
    assert not (tmp_path / "changes.json").exists()


def test_an_address_that_another_server_has_is_refused(cluster: Elsewhere, servers: Servers) -> None:
    ended = servers("add", "c", f"127.0.0.1:{cluster.fakes['a'].port}", "--json")
    assert ended.code == 2
    assert f"2 servers have the address {cluster.fakes['a'].url}" in ended.error["problems"]


def test_a_mistake_in_the_description_is_told_with_its_place(environ: Callable[..., None], servers: Servers) -> None:
    environ({"NUKE_COMFYUI_SERVERS": '[{"ip": "10.0.0.1", "port": "x"}]'})
    ended = servers("--json")
    assert ended.code == 2
    assert ended.error["problems"] == ["NUKE_COMFYUI_SERVERS[0].port: expected a whole number, not 'x'"]


def test_with_one_server_only_workers_have_to_be_started_again(
    elsewhere: Elsewhere, environ: Callable[..., None], servers: Servers
) -> None:
    one = elsewhere.fakes["a"]
    environ({"COMFYUI_HOST": one.host, "COMFYUI_PORT": str(one.port)})
    assert [server["name"] for server in servers("--json").data["servers"]] == ["comfyui"]
    added = servers("add", "second", f"127.0.0.1:{elsewhere.fakes['b'].port}")
    assert "start them again" in added.err
    assert [server["status"] for server in servers("--json").data["servers"]] == ["online", "online"]


def test_the_doctor_asks_the_cluster_as_a_worker_does(
    cluster: Elsewhere,
    environ: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said() -> tuple[str, str]:
        run(["doctor", "--json"])
        [check] = [one for one in json.loads(capsys.readouterr().out)["data"] if one["name"] == "service comfyui"]
        return check["state"], check["message"]

    environ({"WORKERS": "comfyui"})
    assert said()[0] == "ok"
    for name in "ab":
        cluster.portal.call(cluster.fakes[name].kill)
    state, message = said()
    assert state == "fail"
    assert message.startswith("no ComfyUI server takes jobs: a: nothing answers at ")
