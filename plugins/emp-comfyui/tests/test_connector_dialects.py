"""Servers that speak another dialect, or know newer ways, are recognised by what they do."""

from pathlib import Path

import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI, Faults, HttpFault

from emp_core.errors import ConnectionLost, InvalidJob, MissingNode

from .rig import BY_FRAMES, Told, one_image, rigged, save, slow_image

OLD = "0.3.30"
"""The fork was parted from ComfyUI about then."""
ONLY_SOCKET = HttpFault("/prompt", "status", method="POST", times=None, status=405)


@pytest.mark.parametrize("faults", [Faults(), Faults(http=[ONLY_SOCKET])], ids=["http", "socket"])
async def test_a_fork_that_tells_the_client_its_id_is_listened_to(tmp_path: Path, faults: Faults):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=faults)
    async with fork as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        told = Told()
        result = await rig.run(slow_image(10), told)
        [prompt] = server.prompts
    assert len(result.artifacts) == 1
    assert "ProbeSlow 5/10" in told.messages
    assert told.checkpoints[-1] == prompt.prompt_id == result.data["prompt_id"]


async def test_prompts_go_over_the_socket_where_there_is_no_other_way(tmp_path: Path):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=Faults(http=[ONLY_SOCKET]))
    async with fork as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        for number in range(3):
            await rig.run(one_image(number), job_id=f"j{number}")
        assert len(server.requested("/prompt", "POST")) == 1, "that it takes none this way is found out once"
        assert len({prompt.client_id for prompt in server.prompts}) == 3


async def test_a_refusal_over_the_socket_is_the_same_as_by_http(tmp_path: Path):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=Faults(http=[ONLY_SOCKET]))
    async with fork as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        with pytest.raises(InvalidJob, match="width"):
            await rig.run({"1": {"class_type": "EmptyImage", "inputs": {"width": -1}}, "2": save("1")}, job_id="a")
        with pytest.raises(MissingNode, match="NoSuchNode"):
            await rig.run({"1": {"class_type": "NoSuchNode", "inputs": {}}, "2": save("1")}, job_id="b")
        assert server.prompts == []


async def test_a_prompt_whose_answer_is_lost_with_the_socket_is_found_and_not_sent_again(tmp_path: Path):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=Faults(http=[ONLY_SOCKET], drop_frames={"prompt_queued"}))
    async with fork as server, rigged(server.url, tmp_path, EMP_COMFYUI_STALL_S="0.2") as rig:
        result = await rig.run(one_image())
        assert len(server.prompts) == 1
    assert len(result.artifacts) == 1


async def test_a_fork_that_answers_nothing_is_a_lost_connection(tmp_path: Path):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=Faults(http=[ONLY_SOCKET], drop_frames={"error"}))
    async with fork as server, rigged(server.url, tmp_path, EMP_COMFYUI_STALL_S="0.1") as rig:
        with pytest.raises(ConnectionLost, match="did not answer"):
            await rig.run({"1": {"class_type": "NoSuchNode", "inputs": {}}, "2": save("1")})


async def test_a_forks_prompt_is_cancelled(tmp_path: Path):
    fork = FakeComfyUI(version=OLD, dialect="fork", faults=Faults(http=[ONLY_SOCKET]))
    async with fork as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def release_at_interrupt() -> None:
            await server.until(lambda: len(server.interrupts) > 0)
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(release_at_interrupt)
            async with anyio.create_task_group() as mine:
                mine.start_soon(rig.run, slow_image(4))
                await hold.reached()
                mine.cancel_scope.cancel()
        assert server.queue.remaining() == 0
        assert [entry["status"]["status_str"] for entry in server.history.values()] == ["error"]
