"""Which server of a pool a workflow goes to, and to which it moves when that one is lost or cannot run it."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from emp_comfyui.testing.faults import HttpFault

from emp_core.connectors.context import JobContext
from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.errors import ConnectionLost, InvalidJob, MissingModel, NotHere, ServiceUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.local import LocalStore

from .clusters import fakes, until
from .rig import Told, checkpoint_image, one_image, slow_image

if TYPE_CHECKING:
    from emp_comfyui.cluster.results import RunProgress, RunResult

ONLINE, OFFLINE = EndpointStatus.ONLINE, EndpointStatus.OFFLINE


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
