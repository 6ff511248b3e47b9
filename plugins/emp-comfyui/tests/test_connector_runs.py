"""Jobs that go well, against the fake server."""

import uuid
from pathlib import Path

import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI
from emp_comfyui.workflow import Workflow

from .rig import BY_FRAMES, Told, bytes_of, image, one_image, rigged, save, slow_image


@pytest.mark.parametrize("version", ["0.3.12", "0.3.64"])
async def test_a_workflow_gives_its_picture_as_an_artifact(tmp_path: Path, version: str):
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        await rig.connector.connect()
        told = Told()
        result = await rig.run(one_image(), told)
        prompt = server.prompts[0]
    (artifact,) = result.artifacts
    assert artifact.media_type == "image/png"
    assert artifact.name == "out_00001_.png"
    assert bytes_of(artifact.url).startswith(b"\x89PNG")
    assert result.data["image_url"] == artifact.url
    assert result.data["prompt_id"] == prompt.prompt_id == told.checkpoints[-1]
    assert result.data["outputs"]["3"]["files"][0]["url"] == artifact.url
    assert result.usage["cached_nodes"] == 0
    assert told.percents == sorted(told.percents)
    assert told.percents[-1] == 100


async def test_progress_counts_nodes_and_steps_and_never_falls(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        told = Told()
        await rig.run(slow_image(10), told)
    assert told.percents == sorted(told.percents)
    assert len(set(told.percents)) > 8
    assert "ProbeSlow 5/10" in told.messages


@pytest.mark.parametrize("version", ["0.3.12", "0.3.64"])
async def test_previews_are_passed_on(tmp_path: Path, version: str):
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        told = Told()
        await rig.run(slow_image(4, preview="jpeg"), told)
    assert told.previews
    assert {preview.media_type for preview in told.previews} == {"image/jpeg"}


@pytest.mark.parametrize("version", ["0.3.12", "0.3.64"])
async def test_pictures_that_come_over_the_socket_are_outputs(tmp_path: Path, version: str):
    graph = {"1": image(batch=3), "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run(graph)
    assert [artifact.media_type for artifact in result.artifacts] == ["image/png"] * 3
    assert rig.stored == ["websocket-2-0.png", "websocket-2-1.png", "websocket-2-2.png"]


async def test_two_jobs_at_once_do_not_mix(tmp_path: Path):
    results = {}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:

        async def run(number: int) -> None:
            results[number] = await rig.run(one_image(number, f"job{number}"), job_id=f"j{number}")

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(run, number)
        assert len({prompt.client_id for prompt in server.prompts}) == 4
    for number, result in results.items():
        assert [artifact.name for artifact in result.artifacts] == [f"job{number}_00001_.png"]


async def test_a_cached_repeat_gives_the_old_files_again(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        first = await rig.run(one_image(), job_id="a")
        told = Told()
        again = await rig.run(one_image(), told, job_id="b")
    assert [artifact.sha256 for artifact in again.artifacts] == [artifact.sha256 for artifact in first.artifacts]
    assert again.usage["cached_nodes"] == 3
    assert told.percents == sorted(told.percents)


async def test_files_that_were_deleted_though_the_cache_names_them_are_made_again(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        first = await rig.run(one_image(), job_id="a")
        (server.folders.path("output") / "out_00001_.png").unlink()
        again = await rig.run(one_image(), job_id="b")
        assert len(server.prompts) == 3
    assert [artifact.sha256 for artifact in again.artifacts] == [artifact.sha256 for artifact in first.artifacts]


async def test_every_output_comes_with_its_subfolder(tmp_path: Path):
    graph = {"1": image(batch=2), "2": save("1", "deep/er/a"), "3": save("1", "b")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run(graph)
    assert len(result.artifacts) == 4
    assert [path.rpartition("/")[0] for path in rig.pictures] == ["", "", "deep/er", "deep/er"]


async def test_temporary_outputs_are_kept_when_asked_for_or_when_there_is_nothing_else(tmp_path: Path):
    preview = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    both = {"1": image(), "2": preview, "3": save("1")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        assert len((await rig.run(both, job_id="a")).artifacts) == 1
        assert len((await rig.run({"prompt": both, "temp_outputs": True}, job_id="b")).artifacts) == 2
        assert len((await rig.run({"1": image(), "2": preview}, job_id="c")).artifacts) == 1


async def test_texts_are_in_the_result(tmp_path: Path):
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "hello"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run({"workflow": graph, "extra_data": {"note": 1}})
    assert result.data["outputs"]["2"]["values"] == {"text": ["hello"]}
    assert result.artifacts == ()


async def test_some_outputs_may_run_alone(tmp_path: Path):
    graph = {"1": image(), "2": save("1", "left"), "3": save("1", "right")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run({"prompt": graph, "partial_execution_targets": ["3"]})
    assert [artifact.name for artifact in result.artifacts] == ["right_00001_.png"]


async def test_3d_models_that_a_node_names_in_words_are_files_if_the_server_gives_them(tmp_path: Path):
    def naming(name: str) -> dict[str, object]:
        return {"1": {"class_type": "Preview3D", "inputs": {"model_file": name}}}

    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        meshes = server.folders.path("output") / "3d"
        meshes.mkdir()
        (meshes / "mesh.glb").write_bytes(b"glTF")
        there = await rig.run(naming("3d/mesh.glb"), job_id="a")
        absent = await rig.run(naming("3d/none.glb"), job_id="b")
        outside = await rig.run(naming("../mesh.glb"), job_id="c")
    [artifact] = there.artifacts
    assert (artifact.name, artifact.media_type) == ("mesh.glb", "model/gltf-binary")
    assert there.data["outputs"]["1"]["files"][0]["subfolder"] == "3d"
    assert absent.artifacts == outside.artifacts == ()
    assert absent.data["outputs"]["1"]["values"]["result"][0] == "3d/none.glb"


async def test_outputs_of_nodes_that_were_put_in_at_run_time_name_the_node_that_they_stand_for(tmp_path: Path):
    graph = {
        "1": image(),
        "12:3": {
            "class_type": "ProbeExpand",
            "inputs": {"image": ["1", 0], "steps": 2},
            "_meta": {"title": "Enlarge"},
        },
        "4": save("12:3", "expanded"),
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, **BY_FRAMES) as rig:
        told = Told()
        result = await rig.run({"prompt": graph, "temp_outputs": True}, told)
    outputs = result.data["outputs"]
    assert outputs.keys() == {"4", "12:3.0.0.3"}
    assert outputs["12:3.0.0.3"]["display_node"] == "12:3"
    assert "display_node" not in outputs["4"]
    assert "Enlarge" in told.messages
    assert not [message for message in told.messages if message and message.startswith("node 12:3")]


@pytest.mark.parametrize(("keep", "left"), [("no", 1), ("yes", 2)])
async def test_prompts_that_ended_a_while_ago_are_removed_from_the_servers_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, left: int
):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path, EMP_COMFYUI_KEEP_HISTORY=keep) as rig:
        await rig.connector.comfyui.submit(
            Workflow.from_payload(one_image()), prompt_id=str(uuid.uuid4()), client_id="somebody else"
        )
        await server.until(lambda: len(server.history) == 1)
        await rig.run(one_image(1))
        assert (await rig.connector.check_health()).ok
        assert len(server.history) == 2
        monkeypatch.setattr("emp_comfyui.connector._HISTORY_S", 0.0)
        for _ in range(2):
            assert (await rig.connector.check_health()).ok
            assert len(server.history) == left
        assert len(server.requested("/history", "POST")) == 2 - left
