"""A web socket may die, fall silent or never open: the job ends all the same."""

from pathlib import Path

import aiohttp
import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI, Faults, HttpFault
from emp_comfyui.workflow import Workflow

from emp_core.errors import ConnectionLost, ServiceUnavailable

from .rig import BY_FRAMES, Told, image, one_image, rigged, slow, slow_image

ENDS = frozenset({"executing", "execution_success", "status"})


async def test_a_socket_cut_in_mid_run_does_not_end_the_job(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def cut() -> None:
            await hold.reached()
            server.drop_sockets()
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            with anyio.fail_after(60):
                result = await rig.run(slow_image())
    assert len(result.artifacts) == 1


async def test_progress_goes_on_after_a_socket_came_back(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        first, second = server.hold("ProbeSlow", at_step=2), server.hold("ProbeSlow", at_step=6)
        told = Told()

        async def cut() -> None:
            await first.reached()
            server.drop_sockets()
            await server.until(lambda: not server.sockets)
            await server.until(lambda: bool(server.sockets))
            first.release()
            await told.said("ProbeSlow 5/8")
            second.release()

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            with anyio.fail_after(60):
                await rig.run(slow_image(8), told)
    assert told.percents == sorted(told.percents)


async def test_a_silent_socket_does_not_hang_the_job(tmp_path: Path):
    async with FakeComfyUI(faults=Faults(silent_sockets=True)) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts


async def test_a_socket_that_another_one_took_over_does_not_hang_the_job(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        told = Told()

        async def take_over() -> None:
            await hold.reached()
            client_id = server.prompts[0].client_id
            ours = server.sockets[str(client_id)]
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(f"{server.url}/ws", params={"clientId": str(client_id)}):
                    await server.until(lambda: server.sockets[str(client_id)] is not ours)
                await server.until(lambda: str(client_id) not in server.sockets)
            assert ours in server.hub.all_open, "ours stays open, and gets nothing more"
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(take_over)
            with anyio.fail_after(60):
                result = await rig.run(slow_image(), told)
    assert len(result.artifacts) == 1
    assert told.percents[-1] == 100


@pytest.mark.parametrize("dropped", [ENDS, frozenset({"executing"}), frozenset({"executed", "progress_state"})])
async def test_lost_frames_do_not_hang_the_job(tmp_path: Path, dropped: frozenset[str]):
    async with FakeComfyUI(faults=Faults(drop_frames=dropped)) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts


async def test_a_server_without_sockets_is_polled(tmp_path: Path):
    fault = HttpFault("/ws", "status", status=404, times=None)
    async with FakeComfyUI(faults=Faults(http=[fault])) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts


async def test_a_workflow_whose_pictures_need_the_socket_does_not_run_without_one(tmp_path: Path):
    graph = {"1": image(), "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    fault = HttpFault("/ws", "status", status=502, times=None)
    async with FakeComfyUI(faults=Faults(http=[fault])) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(ServiceUnavailable):
            await rig.run(graph)
        assert server.prompts == []


SENDS = {"1": slow(), "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}


async def test_pictures_that_a_lost_socket_took_along_are_a_failure_and_not_left_out(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def cut() -> None:
            await hold.reached()
            server.drop_sockets()
            await server.until(lambda: bool(server.interrupts))
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            with anyio.fail_after(60), pytest.raises(ConnectionLost) as caught:
                await rig.run(SENDS)
        assert server.queue.remaining() == 0
    assert caught.value.details["reason"] == "pictures_lost"


async def test_pictures_that_do_not_come_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("emp_comfyui.run._FRAMES_LATE_S", 0.1)
    async with FakeComfyUI(faults=Faults(silent_sockets=True)) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60), pytest.raises(ConnectionLost) as caught:
            await rig.run(SENDS)
    assert caught.value.details["reason"] == "pictures_lost"


async def test_a_late_history_is_waited_for(tmp_path: Path):
    async with FakeComfyUI(faults=Faults(history_late_by=3)) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts


async def test_a_history_that_somebody_cleared_is_made_up_for_by_the_frames(tmp_path: Path):
    async with FakeComfyUI(faults=Faults(history_never=True)) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts


async def test_a_history_that_never_comes_and_frames_that_do_not_either_are_a_lost_prompt(tmp_path: Path):
    faults = Faults(history_never=True, silent_sockets=True)
    async with FakeComfyUI(faults=faults) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60), pytest.raises(ConnectionLost):
            await rig.run(one_image())


async def test_a_lost_answer_is_looked_for_before_the_prompt_is_sent_again(tmp_path: Path):
    for version in ("0.3.12", "0.3.64"):
        fault = HttpFault("/prompt", "lose_answer", method="POST")
        async with FakeComfyUI(version=version, faults=Faults(http=[fault])) as server:
            async with rigged(server.url, tmp_path) as rig:
                with anyio.fail_after(60):
                    assert (await rig.run(one_image(), job_id=version)).artifacts
            assert fault.seen == 1
            assert len(server.prompts) == 1


async def test_a_prompt_that_never_arrived_is_sent_again(tmp_path: Path):
    fault = HttpFault("/prompt", "drop", method="POST")
    async with FakeComfyUI(faults=Faults(http=[fault])) as server, rigged(server.url, tmp_path) as rig:
        with anyio.fail_after(60):
            assert (await rig.run(one_image())).artifacts
        assert len(server.prompts) == 1


async def test_the_prompts_id_is_kept_before_it_is_sent(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.pause_queue()
        told = Told()
        with anyio.move_on_after(5) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(rig.run, one_image(), told)
                await server.until(lambda: bool(server.prompts))
                assert told.checkpoints == [server.prompts[0].prompt_id]
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught


async def test_a_later_attempt_takes_over_what_still_runs(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        accepted = await rig.connector.comfyui.submit(
            _workflow(slow_image()), prompt_id="11111111-1111-4111-8111-111111111111", client_id="gone"
        )
        assert accepted is not None

        async def go_on() -> None:
            await hold.reached()
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(go_on)
            with anyio.fail_after(60):
                result = await rig.run(slow_image(), earlier=accepted.prompt_id, attempt=2)
        assert len(server.prompts) == 1
    assert result.usage["adopted"] is True
    assert result.data["prompt_id"] == accepted.prompt_id


async def test_a_later_attempt_takes_what_an_earlier_one_made(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        told = Told()
        await rig.run(one_image(), told)
        again = await rig.run(one_image(), earlier=told.checkpoints[-1], attempt=2)
        assert len(server.prompts) == 1
    assert again.usage["adopted"] is True


async def test_a_later_attempt_runs_again_what_is_gone(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        first = await rig.run(one_image(), earlier="no-such-prompt", attempt=2)
        assert len(server.prompts) == 1
        (server.folders.path("output") / "out_00001_.png").unlink()
        told = Told()
        again = await rig.run(one_image(), told, earlier=first.data["prompt_id"], attempt=3)
        answered_from_cache, run = server.prompts[1:]
    assert told.checkpoints == [answered_from_cache.prompt_id, run.prompt_id]
    assert again.data["prompt_id"] == run.prompt_id
    assert "adopted" not in again.usage
    assert [artifact.sha256 for artifact in again.artifacts] == [artifact.sha256 for artifact in first.artifacts]


def _workflow(graph: dict[str, object]) -> Workflow:
    return Workflow.from_payload(graph)
