"""Jobs that fail, and servers that do: the type of the error, and that nothing hangs."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI, Faults, Hold, HttpFault, Input, NodeCall, NodeClass, Result

from emp_core.errors import (
    ConnectionLost,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    MissingNode,
    OutOfMemory,
    ServiceBroken,
    ServiceUnavailable,
    UnsafeName,
)
from emp_core.jobs.retry import job_error

from .rig import Rig, Told, image, one_image, rigged, save, slow_image


def raising(kind: str, message: str = "boom") -> dict[str, Any]:
    fail = {"class_type": "ProbeRaise", "inputs": {"image": ["1", 0], "message": message, "kind": kind}}
    return {"1": image(), "2": fail, "3": save("2")}


async def test_a_node_that_fails_is_named_without_paths_and_tracebacks(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(JobFailed) as caught:
            await rig.run(raising("ValueError", "no /home/me/models/x.bin here\ntensor([1, 2])"))
    details = caught.value.details
    assert details["node_id"] == "2"
    assert details["node_type"] == "ProbeRaise"
    assert details["exception_type"] == "ValueError"
    assert "/home" not in str(caught.value.as_dict())
    assert "tensor" not in str(caught.value.as_dict())
    assert "x.bin" in caught.value.message
    assert rig.stored == []


async def test_a_node_that_fails_twice_in_the_same_way_is_not_tried_a_third_time(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(JobFailed) as first:
            await rig.run(raising("ValueError"))
        error = job_error(first.value, retryable=True)
        with pytest.raises(InvalidJob, match="in the same way twice"):
            await rig.run(raising("ValueError"), attempt=2, error=error)
        with pytest.raises(JobFailed):
            await rig.run(raising("KeyError"), attempt=2, error=error)


async def test_a_picture_that_is_none_is_the_jobs_own_mistake(tmp_path: Path):
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "no picture.png"}}, "2": save("1")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        (server.folders.path("input") / "no picture.png").write_bytes(b"no picture")
        with pytest.raises(InvalidJob, match="UnidentifiedImageError"):
            await rig.run(graph)


async def test_out_of_memory_is_known_by_its_type(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(OutOfMemory):
            await rig.run(raising("OutOfMemory"))
        with pytest.raises(JobFailed):
            await rig.run(raising("ValueError", "CUDA out of memory"))


async def test_a_refused_workflow_names_every_node_and_input(tmp_path: Path):
    graph = {"1": image(size=0), "2": save("1"), "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InvalidJob) as caught:
            await rig.run(graph)
        assert not server.history
    told = {problem["node_id"]: problem for problem in caught.value.details["node_errors"]}
    assert told["1"]["class_type"] == "EmptyImage"
    assert {error["input"] for error in told["1"]["errors"]} >= {"width"}
    assert told["3"]["errors"][0]["type"] == "required_input_missing"
    assert "node 1 (EmptyImage)" in caught.value.message


@pytest.mark.parametrize("version", ["0.3.12", "0.3.64"])
async def test_a_node_class_that_is_not_there_may_be_elsewhere(tmp_path: Path, version: str):
    graph = {"1": image(), "2": {"class_type": "NoSuchNode", "inputs": {"images": ["1", 0]}}, "3": save("2")}
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(MissingNode) as caught:
            await rig.run(graph)
    assert caught.value.details["class_type"] == "NoSuchNode"


async def test_a_model_file_that_is_not_there_may_be_elsewhere(tmp_path: Path):
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mine.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": save("3"),
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(MissingModel) as caught:
            await rig.run(graph)
    assert caught.value.details["models"] == ["mine.safetensors"]


async def test_a_choice_that_is_no_model_is_the_jobs_own_mistake(tmp_path: Path):
    scale = {"image": ["1", 0], "upscale_method": "magic", "width": 8, "height": 8, "crop": "disabled"}
    graph = {"1": image(), "2": {"class_type": "ImageScale", "inputs": scale}, "3": save("2")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InvalidJob):
            await rig.run(graph)


async def test_a_server_that_breaks_on_a_workflow_refuses_it(tmp_path: Path):
    fault = HttpFault("/prompt", "status", method="POST", status=500)
    async with FakeComfyUI(faults=Faults(http=[fault])) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InvalidJob):
            await rig.run(one_image())


async def test_outputs_that_the_server_would_leave_out_are_an_error_and_nothing_runs_on(tmp_path: Path):
    graph = {**slow_image(), "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)
        async with anyio.create_task_group() as group:
            group.start_soon(release_when_interrupted, server, hold)
            error = await failure(rig, graph)
        assert server.queue.remaining() == 0
        assert server.history[server.prompts[0].prompt_id]["status"]["status_str"] == "error"
    assert isinstance(error, InvalidJob)
    assert error.details["dropped_outputs"] == ["3"]


async def test_outputs_may_be_left_out_if_the_job_says_so(tmp_path: Path):
    graph = {"1": image(), "2": save("1"), "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run({"prompt": graph, "allow_partial": True})
    assert len(result.artifacts) == 1


@pytest.mark.parametrize("graph", [one_image(), {"1": image(), "2": save("1")}])
async def test_a_run_that_put_nothing_out_is_a_failure(tmp_path: Path, graph: Any):
    async with FakeComfyUI(faults=Faults(no_outputs=True)) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(JobFailed) as caught:
            await rig.run(graph)
    assert caught.value.details["reason"] == "no_output"


async def test_a_run_may_put_nothing_out_where_its_payload_says_so(tmp_path: Path):
    async with FakeComfyUI(faults=Faults(no_outputs=True)) as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run({"prompt": one_image(), "allow_empty": True})
    assert (result.artifacts, result.data["outputs"]) == ((), {})


async def test_nodes_that_never_tell_what_they_write_need_not(tmp_path: Path):
    async def save_model(_: NodeCall) -> Result:
        return Result()

    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(NodeClass("LoraSave", save_model, inputs={"image": Input("IMAGE")}, output_node=True))
        graph = {"1": image(), "2": {"class_type": "LoraSave", "inputs": {"image": ["1", 0]}}}
        result = await rig.run(graph)
        assert result.artifacts == ()
        server.faults = Faults(no_outputs=True)
        with pytest.raises(JobFailed, match="put out nothing"):
            await rig.run({**graph, "3": save("1")}, job_id="b")


async def test_a_file_that_is_gone_is_a_failure_that_says_so(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(one_image(), job_id="a")
        server.faults = Faults(missing_outputs=True)
        with pytest.raises(JobFailed) as caught:
            await rig.run(one_image(), job_id="b")
    assert caught.value.details["reason"] == "output_missing"
    assert "cache" in str(caught.value)


UNSAFE_FILES = ["../../evil.png", "/etc/passwd", "a\\..\\b.png", "C:evil.png", "a\x00b.png", "x/../y.png"]
UNSAFE_FOLDERS = ["..", "/etc", "\\\\host\\share", "a/../../b", "..\\.."]


@pytest.mark.parametrize(
    ("filename", "subfolder"), [(name, "") for name in UNSAFE_FILES] + [("ok.png", name) for name in UNSAFE_FOLDERS]
)
async def test_a_name_that_leaves_its_folder_fails_the_job_and_nothing_is_written(
    tmp_path: Path, filename: str, subfolder: str
):
    async def run(call: NodeCall) -> Result:
        return Result(ui={"images": [{"filename": filename, "subfolder": subfolder, "type": "output"}]})

    graph = {"1": image(), "2": save("1"), "3": {"class_type": "Climber", "inputs": {}}}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path / "store") as rig:
        server.nodes.add(NodeClass("Climber", run, output_node=True))
        with pytest.raises(UnsafeName) as caught:
            await rig.run(graph)
        assert not server.requested("/view")
    assert caught.value.details["node_id"] == "3"
    assert rig.pictures == []


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path):
    async with FakeComfyUI() as server:
        url = server.url
    async with rigged(url, tmp_path) as rig:
        for call in (rig.connector.connect(), rig.run(one_image())):
            with pytest.raises(ServiceUnavailable):
                await call
        assert not (await rig.connector.check_health()).ok


async def test_a_service_that_is_no_comfyui_is_unavailable(tmp_path: Path):
    fault = HttpFault("/system_stats", "garbage", times=None)
    async with FakeComfyUI(faults=Faults(http=[fault])) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(ServiceUnavailable):
            await rig.connector.connect()


async def test_a_server_killed_in_mid_run_is_a_lost_connection_soon(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def kill() -> None:
            await hold.reached()
            await server.kill()

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            with anyio.fail_after(60):
                error = await failure(rig, slow_image())
    assert isinstance(error, ConnectionLost)
    assert error.details["reason"] == "server_gone"


async def test_a_prompt_that_a_restart_forgot_is_lost_and_not_waited_for(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, EMP_COMFYUI_GONE_S="30") as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def restart() -> None:
            await hold.reached()
            await server.restart()

        async with anyio.create_task_group() as group:
            group.start_soon(restart)
            with anyio.fail_after(60):
                error = await failure(rig, slow_image())
    assert isinstance(error, ConnectionLost)
    assert error.details["reason"] == "prompt_lost"


async def test_a_prompt_that_somebody_deleted_is_lost(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.pause_queue()

        async def delete() -> None:
            await server.until(lambda: server.queue.remaining() == 1)
            await rig.connector.comfyui.delete_waiting(server.prompts[0].prompt_id)

        async with anyio.create_task_group() as group:
            group.start_soon(delete)
            with anyio.fail_after(60):
                error = await failure(rig, one_image())
    assert error.details["reason"] == "prompt_lost"


async def test_a_prompt_that_somebody_interrupted_is_a_failure_that_may_be_tried_again(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow", at_step=2)

        async def interrupt() -> None:
            await hold.reached()
            await rig.connector.comfyui.interrupt(server.prompts[0].prompt_id)
            hold.release()

        async with anyio.create_task_group() as group:
            group.start_soon(interrupt)
            error = await failure(rig, slow_image())
    assert isinstance(error, JobFailed)
    assert error.details["reason"] == "interrupted"


async def test_a_queue_that_stands_still_is_a_broken_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("emp_comfyui.truth._DEAD_QUEUE_S", 0.2)
    monkeypatch.setattr("emp_comfyui.connector._STANDSTILL_PAUSE_S", 0.01)
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.pause_queue()
        healths = []

        async def look() -> None:
            await server.until(lambda: server.queue.remaining() == 1)
            healths.append(await rig.connector.check_health())

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            with anyio.fail_after(60):
                error = await failure(rig, one_image())
        assert isinstance(error, ServiceBroken)
        assert server.queue.remaining() == 0
        assert (await rig.connector.check_health()).ok
    assert not healths[0].ok


@pytest.mark.parametrize("kind", ["garbage", "drop", "oversized"])
async def test_answers_that_are_none_for_a_while_do_not_end_a_job(tmp_path: Path, kind: Any):
    faults = Faults(http=[HttpFault("/history/*", kind, times=2, size=100_000)], silent_sockets=True)
    async with FakeComfyUI(faults=faults) as server, rigged(server.url, tmp_path, EMP_COMFYUI_GONE_S="5") as rig:
        rig.connector.max_answer_bytes = 50_000  # type: ignore[misc]  # this test's cap
        with anyio.fail_after(30):
            assert (await rig.run(one_image())).artifacts


async def test_a_store_that_cannot_be_written_fails_the_job_after_its_run(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    async with FakeComfyUI() as server, rigged(server.url, tmp_path / "file") as rig:
        with pytest.raises(EmpError):
            await rig.run(one_image())


async def release_when_interrupted(server: FakeComfyUI, hold: Hold) -> None:
    await server.until(lambda: bool(server.interrupts))
    hold.release()


async def failure(rig: Rig, payload: Any, told: Told | None = None) -> EmpError:
    try:
        await rig.run(payload, told)
    except EmpError as error:
        return error
    raise AssertionError("the job went well")


async def test_a_server_that_breaks_on_listing_its_jobs_is_asked_for_its_queue(tmp_path: Path):
    # The list holds everybody's prompts, and one with odd extra_data is enough.
    broken = Faults(http=[HttpFault("/jobs", "status", times=None)])
    async with FakeComfyUI(version="0.38.0", faults=broken) as server, rigged(server.url, tmp_path) as rig:
        server.pause_queue()
        async with anyio.create_task_group() as group:
            group.start_soon(rig.run, one_image())
            await server.until(lambda: len(server.requested("/queue", "GET")) >= 2)
            server.resume_queue()
        assert len(server.requested("/jobs")) == 1
    assert rig.stored == ["out_00001_.png"]
