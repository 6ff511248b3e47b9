"""A pool of servers by itself, as a host program uses it: no Redis, no worker."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.testing import FakeComfyUI
from emp_comfyui.testing.faults import HttpFault
from emp_comfyui.testing.pictures import plasma

from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.errors import InputError

from .clusters import QUICK, fakes, until
from .rig import one_image, save, slow_image

if TYPE_CHECKING:
    from emp_comfyui.cluster.results import RunProgress

ONLINE, OFFLINE, ERROR = EndpointStatus.ONLINE, EndpointStatus.OFFLINE, EndpointStatus.ERROR


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
