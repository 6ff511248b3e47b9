"""A cancelled job stops its prompt, and nobody else's."""

from functools import partial
from pathlib import Path

import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI, Faults, Hold, HttpFault

from .rig import Rig, one_image, rigged, slow_image


async def release_at_interrupt(server: FakeComfyUI, hold: Hold, interrupts: int = 1) -> None:
    await server.until(lambda: len(server.interrupts) >= interrupts)
    hold.release()


async def run_until(rig: Rig, cancelled: anyio.Event, ended: anyio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(rig.run, slow_image())
        await cancelled.wait()
        group.cancel_scope.cancel()
    ended.set()


def has_prompts(server: FakeComfyUI) -> bool:
    return bool(server.prompts)


VERSIONS = ["0.3.12", "0.3.64", "0.10.0", "0.38.0"]
"""Interrupts without an id, with an id, with ``/api/jobs``, and with a route that cancels by id."""


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_waiting_prompt_is_taken_out_of_the_queue(tmp_path: Path, version: str):
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
        server.pause_queue()
        async with anyio.create_task_group() as group:
            group.start_soon(rig.run, one_image())
            await server.until(lambda: bool(server.prompts))
            group.cancel_scope.cancel()
        assert server.queue.remaining() == 0
        assert server.interrupts == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_running_prompt_is_interrupted(tmp_path: Path, version: str):
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        cancel, ended = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(run_until, rig, cancel, ended)
            group.start_soon(release_at_interrupt, server, hold)
            await hold.reached()
            cancel.set()
            with anyio.fail_after(60):
                await ended.wait()
        (entry,) = server.history.values()
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cancel_reaches_the_server_within_a_second_and_stops_the_prompt_at_its_next_step(
    tmp_path: Path, version: str
):
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        cancel, ended = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(run_until, rig, cancel, ended)
            await hold.reached()
            cancelled_at = anyio.current_time()
            cancel.set()
            await server.until(lambda: any(one.effective for one in server.interrupts))
            assert anyio.current_time() - cancelled_at < 1
            hold.release()
            with anyio.fail_after(60):
                await ended.wait()
        assert server.queue.remaining() == 0
        (entry,) = server.history.values()
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert entry["outputs"] == {}


async def test_newer_ways_are_used_where_they_are_and_looked_for_once(tmp_path: Path):
    paths: dict[str, list[tuple[str, str]]] = {}
    for version in VERSIONS:
        async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
            for _ in range(2):
                server.pause_queue()
                begun = len(server.prompts)
                async with anyio.create_task_group() as group:
                    group.start_soon(rig.run, one_image())
                    await server.until(lambda begun=begun: len(server.prompts) > begun)  # type: ignore[misc]
                    group.cancel_scope.cancel()
            asked = [(one.method, one.path) for one in server.requests]
            paths[version] = [("POST", "cancel") if path.endswith("/cancel") else (way, path) for way, path in asked]
    assert paths["0.3.64"].count(("GET", "/jobs")) == 1
    assert paths["0.3.64"].count(("POST", "cancel")) == 1
    assert ("GET", "/queue") not in paths["0.10.0"]
    assert paths["0.10.0"].count(("POST", "cancel")) == 1
    assert ("POST", "/queue") in paths["0.10.0"]
    assert not {("GET", "/queue"), ("POST", "/queue"), ("POST", "/interrupt")} & set(paths["0.38.0"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_interrupt_that_got_lost_is_sent_again(tmp_path: Path, version: str):
    faulty = FakeComfyUI(version=version, faults=Faults(lost_interrupts=2))
    async with faulty as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        cancel, ended = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(run_until, rig, cancel, ended)
            group.start_soon(release_at_interrupt, server, hold, 3)
            await hold.reached()
            cancel.set()
            with anyio.fail_after(60):
                await ended.wait()
        assert server.queue.remaining() == 0


async def test_on_an_old_server_somebody_elses_prompt_is_not_interrupted(tmp_path: Path):
    async with FakeComfyUI(version="0.3.12") as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        async with anyio.create_task_group() as group:
            others = anyio.Event()

            async def other() -> None:
                await rig.run(slow_image(), job_id="other")
                others.set()

            group.start_soon(other)
            await hold.reached()
            async with anyio.create_task_group() as mine:
                mine.start_soon(rig.run, one_image())
                await server.until(lambda: len(server.prompts) == 2)
                mine.cancel_scope.cancel()
            assert server.interrupts == []
            hold.release()
            with anyio.fail_after(60):
                await others.wait()
    assert rig.stored == ["slow_00001_.png"]


async def test_a_prompt_whose_answer_never_came_is_stopped_as_well(tmp_path: Path):
    for version in ("0.3.12", "0.3.64"):
        fault = HttpFault("/prompt", "lose_answer", method="POST")
        async with FakeComfyUI(version=version, faults=Faults(http=[fault])) as server:
            async with rigged(server.url, tmp_path) as rig:
                server.pause_queue()
                async with anyio.create_task_group() as group:
                    group.start_soon(rig.run, one_image())
                    await server.until(partial(has_prompts, server))
                    group.cancel_scope.cancel()
            assert server.queue.remaining() == 0


async def test_cancelling_is_bounded_when_the_prompt_does_not_stop(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, EMP_COMFYUI_CANCEL_S="0.2") as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(rig.run, slow_image())
                await hold.reached()
                group.cancel_scope.cancel()
        assert server.queue.remaining() == 1
        hold.release()


async def test_cancelling_is_quick_when_the_server_is_dead(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, EMP_COMFYUI_GONE_S="60") as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(rig.run, slow_image())
                await hold.reached()
                await server.kill()
                group.cancel_scope.cancel()
