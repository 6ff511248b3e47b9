"""The fake server as its users meet it: workflows, own node classes, older versions, what can be looked at."""

import io
import json
from pathlib import Path

import aiohttp
import pytest
from emp_comfyui.testing import FakeComfyUI, Input, NodeCall, NodeClass, Result, image_headers, jpeg, pictures, png

from .fake_client import one_image, slow_image, text_to_image, types, watching


async def test_text_to_image_paints_a_png_of_the_asked_size_that_carries_its_workflow() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        workflow = {"nodes": [], "version": 0.4}
        graph = text_to_image(width=96, height=64)
        entry = await client.run(graph, extra_data={"extra_pnginfo": {"workflow": workflow}})
        (reference,) = entry["outputs"]["9"]["images"]
        data = await client.bytes("/view", **reference)
        assert png.size(data) == (96, 64)
        assert json.loads(png.texts(data)["prompt"]) == graph
        assert json.loads(png.texts(data)["workflow"]) == workflow
        assert len(set(png.decode(data).data)) > 50, "a painting, not one colour"


async def test_the_seed_alone_decides_about_the_picture() -> None:
    async def picture(seed: int) -> bytes:
        async with FakeComfyUI() as server, watching(server.url) as client:
            entry = await client.run(text_to_image(seed))
            return png.decode(await client.bytes("/view", **entry["outputs"]["9"]["images"][0])).data

    assert await picture(1) == await picture(1)
    assert await picture(1) != await picture(2)


async def test_the_sampler_reports_every_step_with_a_preview() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        await client.run(text_to_image(steps=5))
        steps = [f["data"]["value"] for f in client.frames if isinstance(f, dict) and f["type"] == "progress"]
        previews = [frame for frame in client.frames if isinstance(frame, bytes)]
        assert steps == [1, 2, 3, 4, 5]
        assert [image_headers.measure(preview[8:]) for preview in previews] == [(64, 48)] * 5


async def test_a_batch_gives_as_many_different_pictures() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        entry = await client.run(text_to_image(batch=3))
        files = [await client.bytes("/view", **image) for image in entry["outputs"]["9"]["images"]]
        assert len({png.decode(data).data for data in files}) == 3


async def test_a_large_picture_does_not_hold_up_the_server() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        entry = await client.run(text_to_image(width=1024, height=1024, steps=1))
        assert png.size(await client.bytes("/view", **entry["outputs"]["9"]["images"][0])) == (1024, 1024)


async def test_image_to_image_keeps_something_of_the_source() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        source = pictures.solid(64, 48, (250, 0, 0))
        (server.folders.path("input") / "red.png").write_bytes(source.as_png())
        graph = text_to_image()
        graph["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
        graph["10"] = {"class_type": "LoadImage", "inputs": {"image": "red.png"}}
        graph["3"]["inputs"]["denoise"] = 0.1
        entry = await client.run(graph)
        result = pictures.from_png(await client.bytes("/view", **entry["outputs"]["9"]["images"][0]))
        assert result.mean_colour()[0] > 200
        assert max(result.mean_colour()[1:]) < 60


async def test_a_picture_that_is_not_decoded_keeps_its_size() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        form = aiohttp.FormData()
        form.add_field("image", jpeg.encode(pictures.plasma(40, 24, "x")), filename="photo.jpg")
        async with client.session.post("/upload/image", data=form) as response:
            name = (await response.json())["name"]
        graph = one_image()
        graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        entry = await client.run(graph)
        assert png.size(await client.bytes("/view", **entry["outputs"]["2"]["images"][0])) == (40, 24)
        assert [upload.name for upload in server.uploads] == ["photo.jpg"]


@pytest.mark.parametrize("name", ["../output/secret.png", "/etc/hostname", "../output/secret.png [temp]"])
async def test_an_input_that_leads_out_of_its_folder_is_not_there(name: str) -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        (server.folders.path("output") / "secret.png").write_bytes(pictures.solid(8, 8, (1, 2, 3)).as_png())
        graph = one_image()
        graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        refused = await client.submit(graph)
        assert refused["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"


async def test_a_mask_upload_becomes_the_alpha_of_its_image() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        folder = server.folders.path("input")
        (folder / "base.png").write_bytes(pictures.solid(8, 8, (1, 2, 3)).as_png())
        mask = png.encode(png.Raster(8, 8, 4, b"\0\0\0\x40" * 64))
        form = aiohttp.FormData()
        form.add_field("image", mask, filename="masked.png")
        form.add_field("original_ref", json.dumps({"filename": "base.png", "type": "input"}))
        async with client.session.post("/upload/mask", data=form) as response:
            assert response.status == 200
        picture = pictures.from_png((folder / "masked.png").read_bytes())
        assert (picture.rgb[:3], picture.alpha) == (b"\x01\x02\x03", b"\x40" * 64)


async def test_a_node_class_of_ones_own_takes_a_few_lines() -> None:
    async def run(call: NodeCall) -> Result:
        for step in range(3):
            await call.step(step + 1, 3, (jpeg.encode(pictures.solid(8, 8, (9, 9, 9))), "image/jpeg"))
        call.send("shout.done", {"loud": True})
        return Result(ui={"text": [call["text"].upper()]})

    async with FakeComfyUI() as server, watching(server.url) as client:
        server.nodes.add(NodeClass("Shout", run, inputs={"text": Input("STRING", {})}, output_node=True))
        entry = await client.run({"1": {"class_type": "Shout", "inputs": {"text": "hello"}}})
        assert entry["outputs"] == {"1": {"text": ["HELLO"]}}
        assert types(client.frames).count("binary") == 3
        assert "shout.done" in types(client.frames)
        assert (await client.json("/object_info/Shout"))["Shout"]["input"]["required"] == {"text": ["STRING", {}]}
        server.nodes.remove("Shout")
        refused = await client.submit({"1": {"class_type": "Shout", "inputs": {"text": "hello"}}})
        assert refused["error"]["type"] == "invalid_prompt"


async def test_models_are_those_that_were_asked_for() -> None:
    async with FakeComfyUI(models={"checkpoints": ["mine.safetensors"]}) as server, watching(server.url) as client:
        refused = await client.submit(text_to_image())
        assert refused["status"] == 400
        assert refused["node_errors"]["4"]["errors"][0]["type"] == "value_not_in_list"
        assert await client.json("/models/checkpoints") == ["mine.safetensors"]
        graph = text_to_image()
        graph["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
        assert (await client.run(graph))["status"]["status_str"] == "success"


async def test_an_older_server_makes_its_own_ids_and_sends_no_progress_state() -> None:
    async with FakeComfyUI(version="0.3.12") as server, watching(server.url) as client:
        await client.socket.send_str(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        answer = await client.submit(slow_image(preview="jpeg"), prompt_id="mine")
        await client.until("end")
        previews = [frame for frame in client.frames if isinstance(frame, bytes)]
        assert answer["prompt_id"] != "mine"
        assert not {"feature_flags", "progress_state"} & set(types(client.frames))
        assert {int.from_bytes(preview[:4], "big") for preview in previews} == {1}
        assert await client.status("/features") == 404
        assert (await client.json("/system_stats"))["system"]["comfyui_version"] == "0.3.12"


@pytest.mark.parametrize(("version", "stopped"), [("0.3.12", True), ("0.3.56", True), ("0.3.57", False)])
async def test_only_newer_servers_look_at_the_id_of_an_interrupt(version: str, *, stopped: bool) -> None:
    async with FakeComfyUI(version=version) as server, watching(server.url) as client:
        hold = server.hold("ProbeSlow", at_step=2)
        await client.submit(slow_image())
        await hold.reached()
        assert await client.post("/interrupt", {"prompt_id": "another"}) == 200
        hold.release()
        await client.until("end")
        assert ("execution_interrupted" in types(client.frames)) is stopped
        assert server.interrupts[0].effective is stopped


async def test_an_unknown_version_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"'newest' is no ComfyUI version"):
        async with FakeComfyUI(version="newest"):
            pass


async def test_everything_that_came_in_can_be_looked_at() -> None:
    async with FakeComfyUI() as server, watching(server.url, "looker") as client:
        await server.until(lambda: "looker" in server.sockets)
        await client.submit(one_image(), client_id="looker")
        await client.until("end")
        assert [prompt.client_id for prompt in server.prompts] == ["looker"]
        assert list(server.history) == [server.prompts[0].prompt_id]
        assert [request.status for request in server.requested("/prompt", "POST")] == [200]
    assert not server.alive


async def test_an_error_of_the_caller_leaves_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with FakeComfyUI():
            raise KeyError("mine")


async def test_output_files_stay_where_they_were_asked_for(tmp_path: Path) -> None:
    async with FakeComfyUI(output_dir=tmp_path) as server, watching(server.url) as client:
        await client.run(one_image(prefix="deep/kept"))
        root = server.folders.path("input").parent
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["kept_00001_.png"]
    assert not root.exists()


async def test_a_body_over_the_limit_is_refused() -> None:
    async with FakeComfyUI(max_upload_size=2000) as server, watching(server.url) as client:
        form = aiohttp.FormData()
        form.add_field("image", bytes(3000), filename="big.png")
        async with client.session.post("/upload/image", data=form) as response:
            assert (response.status, await response.text()) == (413, "Maximum request body size 2000 exceeded.")


async def test_a_cached_node_without_ui_is_told_as_executed_with_nothing() -> None:
    async def run(call: NodeCall) -> None:
        del call

    async with FakeComfyUI() as server, watching(server.url) as client:
        server.nodes.add(NodeClass("Mute", run, output_node=True))
        await client.run({"1": {"class_type": "Mute", "inputs": {}}})
        client.frames.clear()
        await client.run({"1": {"class_type": "Mute", "inputs": {}}})
        executed = [f["data"] for f in client.frames if isinstance(f, dict) and f["type"] == "executed"]
        assert [frame["output"] for frame in executed] == [None]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (65, 33)])
def test_pictures_survive_their_files(size: tuple[int, int]) -> None:
    picture = pictures.plasma(*size, "seed")
    assert pictures.from_png(picture.as_png()) == picture
    assert image_headers.measure(jpeg.encode(picture)) == size


def test_every_line_filter_of_png_is_read() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes PNGs with all line filters; this module does not")
    noise = pictures.noisy(pictures.plasma(40, 30, "x"), 1, 0.3)
    written = io.BytesIO()
    image.frombytes("RGB", (40, 30), noise.rgb).save(written, "PNG")
    assert pictures.from_png(written.getvalue()).rgb == noise.rgb


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_png_is_told_from_a_sound_one(damage: str) -> None:
    data = pictures.solid(4, 4, (1, 2, 3)).as_png()
    broken = {"cut": data[:-20], "flipped": data[:40] + b"\xff" + data[41:], "foreign": b"GIF89a"}[damage]
    with pytest.raises(png.NotAPng):
        png.decode(broken)
