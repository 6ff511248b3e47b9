"""A pool of servers by itself, as a host program uses it: no Redis, no worker."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.hosts import Hosts
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.cluster.server import ComfyUIServer
from emp_comfyui.testing import FakeComfyUI
from emp_comfyui.testing.faults import HttpFault
from emp_comfyui.testing.pictures import plasma

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.errors import (
    ConfigError,
    ConnectionLost,
    InputError,
    InvalidJob,
    MissingModel,
    NotHere,
    ServiceUnavailable,
)
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.local import LocalStore

from .clusters import QUICK, Fakes, fakes
from .rig import Told, one_image, save, slow_image

if TYPE_CHECKING:
    from emp_comfyui.cluster.results import RunProgress, RunResult

ONLINE, OFFLINE, ERROR = EndpointStatus.ONLINE, EndpointStatus.OFFLINE, EndpointStatus.ERROR


def checkpoint_image(ckpt_name: str) -> dict[str, Any]:
    """A picture out of a checkpoint's VAE."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ckpt_name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": save("3"),
    }


def attempt(folder: Path, told: Told, *, earlier: str | None = None) -> tuple[Job, JobContext]:
    """An attempt of a job, as a worker makes it."""
    job = Job(
        "job",
        "comfyui",
        "comfyui",
        JobState.ACTIVE,
        payload=slow_image(4),
        attempt=1 if earlier is None else 2,
        service_job_id=earlier,
        requirement=Requirement("comfyui"),
    )
    store = LocalStore(folder / "store")
    return job, JobContext(job, store=store, report=told.report, save_checkpoint=told.checkpoint)


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not met():  # noqa: ASYNC110 - states of a pool have no event to wait for
            await anyio.sleep(0.01)


async def test_a_workflow_gives_its_files_where_they_are_wanted(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        first = await pool.run(one_image(), folder=tmp_path / "shots")
        again = await pool.run(one_image(), folder=tmp_path / "shots")
    [output] = first.outputs
    assert output.path == tmp_path / "shots" / "out_00001_.png"
    assert output.path.read_bytes().startswith(b"\x89PNG")
    assert (output.media_type, output.node_id, output.data) == ("image/png", "3", None)
    assert again.outputs[0].path == tmp_path / "shots" / "out_00001_-2.png"
    assert {first.server, again.server} == {"a", "b"}
    assert sorted(path.name for path in (tmp_path / "shots").iterdir()) == ["out_00001_-2.png", "out_00001_.png"]


async def test_without_a_folder_the_bytes_are_in_the_result(tmp_path: Path) -> None:
    async with fakes("a") as servers, servers.pool(tmp_path) as pool:
        done = await pool.run({"prompt": one_image()})
    [output] = done.outputs
    assert output.path is None
    assert output.data is not None
    assert output.data.startswith(b"\x89PNG")
    assert len(output.data) == output.size_bytes


async def test_files_that_a_workflow_refers_to_are_uploaded_to_the_server_that_runs_it(tmp_path: Path) -> None:
    plate = tmp_path / "plates" / "sh010.png"
    plate.parent.mkdir()
    plate.write_bytes(plasma(8, 8, "plate").as_png())
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": {"$input": {"path": str(plate)}}}}, "2": save("1")}
    async with fakes("a", "b") as servers:
        async with servers.pool(tmp_path, EMP_INPUT_FOLDERS=str(plate.parent)) as pool:
            done = await pool.run(graph, server="b", folder=tmp_path / "shots")
        assert [len(servers[name].uploads) for name in "ab"] == [0, 1]
        async with servers.pool(tmp_path) as pool:
            with pytest.raises(InputError, match="EMP_INPUT_FOLDERS"):
                await pool.run(graph)
    assert [output.name for output in done.outputs] == ["out_00001_.png"]
    assert [path.name for path in (tmp_path / "shots").iterdir()] == ["out_00001_.png"]


async def test_progress_tells_the_server_and_never_falls(tmp_path: Path) -> None:
    told: list[RunProgress] = []
    async with fakes("a") as servers, servers.pool(tmp_path, EMP_COMFYUI_POLL_S="30") as pool:
        await pool.run(slow_image(6, preview="jpeg"), on_progress=told.append)
    percents = [one.percent for one in told]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert {one.server for one in told} == {"a"}
    assert any(one.preview for one in told)


async def test_a_burst_is_spread_over_the_servers(tmp_path: Path) -> None:
    async with fakes("a", "b", "c") as servers, servers.pool(tmp_path) as pool:
        holds = [servers[name].hold("ProbeSlow") for name in "abc"]
        async with anyio.create_task_group() as group:
            for _ in range(9):
                group.start_soon(pool.run, slow_image())
            for hold in holds:
                await hold.reached()
            await until(lambda: sum(servers.ran.values()) == 9)
            assert servers.ran == {"a": 3, "b": 3, "c": 3}
            for hold in holds:
                hold.release()


async def test_a_server_that_is_busy_with_others_work_gets_less(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, anyio.create_task_group() as group:
        hold = servers["a"].hold("ProbeSlow")
        somebody_else = ComfyUIServerPool([servers.server("a")], environ=QUICK)
        for _ in range(3):
            group.start_soon(somebody_else.run, slow_image())
        await until(lambda: servers.ran["a"] == 3)
        async with servers.pool(tmp_path) as pool:
            assert [(await pool.run(one_image())).server for _ in range(3)] == ["b", "b", "b"]
        hold.release()
    await somebody_else.aclose()


@pytest.mark.parametrize("end", ["kill", "hang"])
async def test_when_its_server_goes_away_in_mid_run_another_one_takes_over(tmp_path: Path, end: str) -> None:
    told: list[RunProgress] = []
    done: list[RunResult] = []
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        hold = servers["a"].hold("ProbeSlow", at_step=3)

        async def run() -> None:
            done.append(await pool.run(slow_image(4), on_progress=told.append))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await hold.reached()
            if end == "kill":
                await servers["a"].kill()
            else:
                servers["a"].fail(HttpFault("*", "hang", times=None))
        [result] = done
        states = {state.name: state.status for state in pool.states()}
        hold.release()
    assert result.server == "b"
    assert len(result.outputs) == 1
    assert states == {"a": OFFLINE, "b": ONLINE}
    assert "server a was lost: begun again on b" in [one.message for one in told]
    percents = [one.percent for one in told]
    assert percents == sorted(percents)
    assert next(one.server for one in told if one.percent < 30) == "a"


async def test_the_prompt_that_was_left_behind_is_stopped_when_its_server_is_back(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        hold = servers["a"].hold("ProbeSlow", at_step=2)
        fault = HttpFault("*", "hang", times=None)
        async with anyio.create_task_group() as group:
            group.start_soon(pool.run, slow_image(400))
            await hold.reached()
            servers["a"].fail(fault)
        assert pool.states()[0].status is OFFLINE
        assert servers["a"].queue.remaining() == 1
        servers["a"].faults = type(servers["a"].faults)()
        await servers["a"].until(lambda: bool(servers["a"].interrupts))
        hold.release()
        await servers["a"].until(lambda: servers["a"].queue.remaining() == 0)
        await until(lambda: pool.states()[0].status is ONLINE)


@pytest.mark.parametrize(("failovers", "begun"), [("0", 1), ("1", 2), ("2", 3)])
async def test_it_moves_as_often_as_is_said(tmp_path: Path, failovers: str, begun: int) -> None:
    async with fakes("a", "b", "c") as servers:
        for name in "abc":
            servers[name].hold("ProbeSlow")
            servers[name].fail(HttpFault("/history/*", "die"))
        async with servers.pool(tmp_path, EMP_COMFYUI_FAILOVERS=failovers) as pool:
            with pytest.raises(ConnectionLost):
                await pool.run(slow_image(4))
        assert sum(servers.ran.values()) == begun


async def test_a_server_can_be_chosen_by_hand(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        pool.disable("a")
        for _ in range(2):
            assert (await pool.run(one_image(), server="b")).server == "b"
        with pytest.raises(NotHere, match="there is no server 'x'"):
            await pool.run(one_image(), server="x")
        with pytest.raises(NotHere, match="server a is disabled"):
            await pool.run(one_image(), server="a")
        await servers["b"].kill()
        with pytest.raises(ServiceUnavailable) as down:
            await pool.run(one_image(), server="b")
        assert down.value.details["server"] == "b"


async def test_a_model_that_one_lacks_is_looked_for_at_the_others(tmp_path: Path) -> None:
    graph = checkpoint_image("rare.safetensors")
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        with pytest.raises(MissingModel, match=r"none of 2 servers can run it: a: .*; b: .*rare\.safetensors"):
            await pool.run(graph)
        servers["b"].models = {**servers["b"].models, "checkpoints": ["rare.safetensors"]}
        for _ in range(2):
            assert (await pool.run(graph)).server == "b"


async def test_servers_that_are_known_to_have_a_model_are_chosen_before_those_that_lack_it(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers:
        servers["b"].models = {**servers["b"].models, "checkpoints": ["rare.safetensors"]}
        async with servers.pool(tmp_path) as pool:
            infos = await pool.service_infos()
            assert set(infos) == {"a", "b"}
            asked = len(servers["a"].requests)
            for _ in range(3):
                assert (await pool.run(checkpoint_image("rare.safetensors"))).server == "b"
            about_nodes = [one.path for one in servers["a"].requests[asked:] if one.path.startswith("/object_info/")]
    assert about_nodes == [], "nobody asked the server that lacks it whether it has it"


async def test_a_job_that_has_moved_in_an_earlier_attempt_does_not_move_again(tmp_path: Path) -> None:
    async with fakes("a", "b", "c", "d") as servers:
        for name in "abcd":
            servers[name].hold("ProbeSlow")
            servers[name].fail(HttpFault("/history/*", "die"))
        async with servers.pool(tmp_path) as pool:
            told = Told()
            with pytest.raises(ConnectionLost):
                await pool.process(*attempt(tmp_path, told))
            assert sum(servers.ran.values()) == 2
            with pytest.raises(ConnectionLost):
                await pool.process(*attempt(tmp_path, told, earlier=told.checkpoints[-1]))
        assert sum(servers.ran.values()) == 3


async def test_a_workflow_that_is_wrong_is_told_once(tmp_path: Path) -> None:
    wrong = one_image()
    wrong["1"] = {"class_type": "EmptyImage", "inputs": {"width": -5, "height": 16, "batch_size": 1, "color": 0}}
    async with fakes("a", "b") as servers, servers.pool(tmp_path) as pool:
        with pytest.raises(InvalidJob):
            await pool.run(wrong)
        with pytest.raises(InvalidJob, match="API format"):
            await pool.run({"nodes": [], "links": []})
    assert sum(servers.ran.values()) == 0


async def test_states_are_online_offline_and_error(tmp_path: Path) -> None:
    async with fakes("well", "away", "wrong", "stuck") as servers:
        await servers["away"].kill()
        servers["wrong"].fail(HttpFault("/system_stats", "garbage", times=None))
        servers["stuck"].pause_queue()
        pool = servers.pool(tmp_path, EMP_COMFYUI_CHECK_TIMEOUT_S="5")
        async with anyio.create_task_group() as group:
            alone = ComfyUIServerPool([servers.server("stuck")], environ=QUICK)
            group.start_soon(alone.run, one_image())
            await servers["stuck"].until(lambda: servers["stuck"].queue.remaining() == 1)
            found = {state.name: state for state in await pool.status()}
            servers["stuck"].resume_queue()
        await alone.aclose()
        await pool.aclose()
    assert {name: state.status for name, state in found.items()} == {
        "well": ONLINE,
        "away": OFFLINE,
        "wrong": ERROR,
        "stuck": ERROR,
    }
    assert "runs none" in str(found["stuck"].reason)
    assert found["well"].reading.details["version"] == "0.3.64"


async def test_the_memory_of_all_gpus_is_told_together(tmp_path: Path) -> None:
    gpus = [{"name": f"cuda:{n}", "type": "cuda", "vram_total": 24, "vram_free": 10 + n} for n in range(2)]
    async with fakes("a", devices=gpus) as servers, servers.pool(tmp_path) as pool:
        [state] = await pool.status(fresh=True)
    assert (state.reading.memory_free_bytes, state.reading.memory_total_bytes) == (21, 48)


async def test_servers_come_and_go_while_workflows_run(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, ComfyUIServerPool([servers.server("a")], environ=QUICK) as pool:
        hold = servers["a"].hold("ProbeSlow")
        done: list[RunResult] = []

        async def run() -> None:
            done.append(await pool.run(slow_image()))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await hold.reached()
            pool.add(servers.server("b"))
            pool.remove("a")
            assert [one.name for one in pool.servers] == ["b"]
            assert (await pool.run(one_image())).server == "b"
            hold.release()
        assert [one.server for one in done] == ["a"]
        with pytest.raises(ConfigError, match="is there already"):
            pool.add(ComfyUIServer("again", servers["b"].host, servers["b"].port))
        with pytest.raises(ConfigError, match="no server 'a'"):
            pool.remove("a")


async def test_connections_to_a_server_that_moved_or_was_removed_are_closed() -> None:
    hosts = Hosts(ServiceConfig("comfyui", {}))
    first, moved, other = ComfyUIServer("a", "h1"), ComfyUIServer("a", "h2"), ComfyUIServer("b", "h3")
    hosts.have([first])
    async with hosts.connector("a") as connector:
        used = connector.client
        hosts.have([moved, other])
        async with hosts.connector("a") as its_new_place:
            assert its_new_place.base_url == moved.url
            new = its_new_place.client
        assert not used.is_closed, "a workflow still runs there"
    assert used.is_closed
    hosts.have([other])
    async with hosts.connector("b") as connector:
        left = connector.client
    assert new.is_closed
    await hosts.aclose()
    assert left.is_closed


async def test_what_is_said_anew_of_a_servers_folders_counts_at_once() -> None:
    hosts = Hosts(ServiceConfig("comfyui", {}))
    hosts.have([ComfyUIServer("a", "h1")])
    async with hosts.connector("a") as connector:
        assert "output" not in connector.settings.folders
    hosts.have([ComfyUIServer("a", "h1", dir_local="/mnt/comfy")])
    async with hosts.connector("a") as connector:
        assert connector.settings.folders["output"] == Path("/mnt/comfy/output")
    await hosts.aclose()


async def test_priorities_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, servers.pool(tmp_path, EMP_COMFYUI_BALANCER="priority") as pool:
        pool.set_priority("a", 2)
        assert [(await pool.run(one_image())).server for _ in range(3)] == ["b", "b", "b"]
        pool.set_priority("b", 3)
        assert [(await pool.run(one_image())).server for _ in range(3)] == ["a", "a", "a"]


async def test_what_is_written_into_the_file_of_changes_is_taken_up(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers:
        pool = servers.pool(tmp_path)
        pool._endpoints._on_event = None
        assert pool._follower is not None
        changes = pool._follower._configuration.changes
        async with pool:
            changes.change("a", enabled=False)
            await until(lambda: pool.states()[0].status is EndpointStatus.DISABLED)
            assert [(await pool.run(one_image())).server for _ in range(2)] == ["b", "b"]
            changes.path.write_text("{ broken")
            changes.path.write_text('[{"name": "b", "removed": true}]')
            await until(lambda: [one.name for one in pool.servers] == ["a"])
            changes.reset()
            await until(lambda: [one.name for one in pool.servers] == ["a", "b"])
            assert all(server.enabled for server in pool.servers)


async def test_a_server_that_the_program_has_under_another_name_disturbs_no_other_change(tmp_path: Path) -> None:
    async with fakes("a", "b", "c") as servers:
        environ = {**servers.environ(tmp_path), "NUKE_COMFYUI_SERVERS": servers.described("a")}
        async with ComfyUIServerPool.from_env(environ) as pool:
            pool.add(servers.server("b"))
            changes = ClusterConfiguration.changes_of(environ)
            changes.change("other", ip=servers["b"].host, port=servers["b"].port)
            changes.change("c", ip=servers["c"].host, port=servers["c"].port)
            await until(lambda: "c" in {server.name for server in pool.servers})
            assert [server.name for server in pool.servers] == ["a", "b", "c"]
            assert (await pool.run(one_image(), server="c")).server == "c"


async def test_what_the_program_changed_itself_outlives_a_change_of_the_file(tmp_path: Path) -> None:
    async with fakes("a", "b", "c") as servers:
        pool = ComfyUIServerPool.from_env(
            {**servers.environ(tmp_path), "NUKE_COMFYUI_SERVERS": f"[{_json(servers, 'a')}, {_json(servers, 'b')}]"}
        )
        assert pool._follower is not None
        pool.add(servers.server("c"))
        pool._follower._configuration.changes.change("a", priority=7)
        await pool._follower.look()
        assert [(one.name, one.priority) for one in pool.servers] == [("a", 7), ("b", 1), ("c", 1)]
        await pool.aclose()


def _json(servers: Fakes, name: str) -> str:
    import json

    return json.dumps(servers.server(name).as_dict())


async def test_paths_are_the_servers_own_there_and_ours_here(tmp_path: Path) -> None:
    async with fakes("a") as servers:
        home = servers["a"].folders.path("output").parent
        mapped = servers.server("a", dir_local="U:/", dir_remote=str(home))
        graph = {
            "1": {"class_type": "PrimitiveString", "inputs": {"value": "U:\\input\\example.png"}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
            **{str(int(key) + 10): node for key, node in {"1": one_image()["1"]}.items()},
            "13": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "sub/out"}},
        }
        async with ComfyUIServerPool([mapped], environ=QUICK) as pool:
            done = await pool.run(graph)
        sent = servers["a"].prompts[0].graph
    assert sent["1"]["inputs"]["value"] == f"{home}/input/example.png"
    assert done.values == {"2": {"text": ["U:/input/example.png"]}}
    assert [one.shared_path for one in done.outputs] == ["U:/output/sub/out_00001_.png"]
    assert graph["1"]["inputs"]["value"] == "U:\\input\\example.png"


async def test_cancelling_a_run_stops_it_on_its_server(tmp_path: Path) -> None:
    async with fakes("a") as servers, servers.pool(tmp_path) as pool:
        hold = servers["a"].hold("ProbeSlow", at_step=2)
        async with anyio.create_task_group() as group:
            group.start_soon(pool.run, slow_image(400))
            await hold.reached()
            group.cancel_scope.cancel()
            hold.release()
        await servers["a"].until(lambda: servers["a"].queue.remaining() == 0)
        assert servers["a"].interrupts
        assert [state.in_flight for state in pool.states()] == [0]


async def test_a_single_server_needs_no_cluster(tmp_path: Path) -> None:
    async with FakeComfyUI() as server:
        environ = {**QUICK, "COMFYUI_HOST": server.host, "COMFYUI_PORT": str(server.port)}
        environ["EMP_COMFYUI_SERVERS_FILE"] = str(tmp_path / "none.json")
        async with ComfyUIServerPool.from_env(environ) as pool:
            assert (await pool.run(one_image())).server == "comfyui"
