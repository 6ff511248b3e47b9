"""Files that a workflow refers to: uploaded, and named in their places."""

from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from emp_comfyui.testing import FakeComfyUI, HttpFault
from emp_comfyui.testing.audio import flac
from emp_comfyui.testing.node_class import Input, NodeCall, NodeClass, Result, Site
from emp_comfyui.testing.pictures import from_png, solid
from emp_comfyui.testing.png import Raster, encode
from emp_comfyui.testing.video import mp4

from emp_core.errors import ConnectionLost, InputError, InvalidJob, ServiceUnavailable

from .rig import bytes_of, rigged, save, slow
from .uploading import CAT, PICTURE, executed, file, img2img, inputs_of

SOUND = flac(1.0, 44100, 2)
FILM = mp4([CAT], 8.0)
MODEL = b"glTF\x02\0\0\0" + bytes(100)


def value_of(server: FakeComfyUI, name: str = "image", node_id: str = "1") -> Any:
    return server.prompts[-1].graph[node_id]["inputs"].get(name)


def loader(name: str, field: str, kind: Input) -> NodeClass:
    """An output node that tells which file it was given."""

    async def run(call: NodeCall) -> Result:
        path = call.site.folders.annotated(call[field])
        return Result(ui={"text": [str(len(path.read_bytes())) if path is not None else "missing"]})

    return NodeClass(name, run, inputs={field: kind}, output_node=True)


def listed(folder: str = "") -> Any:
    def choices(site: Site) -> list[str]:
        base = site.folders.path("input")
        (base / folder).mkdir(exist_ok=True)
        return sorted(path.relative_to(base).as_posix() for path in (base / folder).iterdir() if path.is_file())

    return choices


async def test_an_image_is_uploaded_under_its_checksum_and_put_into_the_workflow(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run(img2img(file(PICTURE, "my cat.png")))
        [upload] = server.uploads
        assert (upload.subfolder, upload.type, upload.size, upload.mask) == ("emp", "input", len(PICTURE), False)
        assert upload.name.endswith(".png")
        assert value_of(server) == f"emp/{upload.name}"
        assert (server.folders.path("input") / "emp" / upload.name).read_bytes() == PICTURE
        assert len(result.artifacts) == 1
        assert "cat" not in upload.name


async def test_the_same_file_gives_the_same_prompt_and_is_stored_once(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(img2img(file(PICTURE, "a.png")))
        await rig.run(img2img(file(PICTURE, "b.png")), job_id="job-2")
        assert server.prompts[0].graph == server.prompts[1].graph
        assert len(inputs_of(server)) == 1
        assert {name for _, name in executed(server)} == set(), "all of it was cached"


async def test_another_file_of_the_same_name_is_another_file(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        first = await rig.run(img2img(file(PICTURE, "a.png")))
        second = await rig.run(img2img(file(solid(8, 8, (1, 2, 3)).as_png(), "a.png")), job_id="job-2")
        assert len(inputs_of(server)) == 2
        assert first.artifacts[0].sha256 != second.artifacts[0].sha256


async def test_the_name_that_the_server_answers_counts(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(img2img(file(PICTURE)))
        path = server.folders.path("input") / value_of(server)
        path.write_bytes(b"somebody changed it")
        result = await rig.run(img2img(file(PICTURE)), job_id="job-2")
        assert value_of(server) == f"emp/{path.stem} (1).png"
        assert len(result.artifacts) == 1


async def test_a_mask_becomes_the_alpha_channel_of_its_image(tmp_path: Path) -> None:
    clear = encode(Raster(32, 32, 4, bytes([0, 0, 0, 0]) * (32 * 32)))
    graph = {
        **img2img(file(PICTURE), mask=file(clear)),
        "4": {"class_type": "MaskPreview", "inputs": {"mask": ["1", 1]}},
    }
    payload = {"workflow": graph, "temp_outputs": True}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(payload)
        image, mask = server.uploads
        assert (image.mask, mask.mask, mask.subfolder) == (False, True, "emp")
        assert value_of(server) == f"emp/{mask.name}"
        assert value_of(server, "mask") is None
        await rig.run(payload, job_id="job-2")
        assert len(server.uploads) == 3, "the masked picture is known by its name"
        assert server.prompts[0].graph == server.prompts[1].graph


async def test_a_mask_goes_with_a_file_of_the_server_too(tmp_path: Path) -> None:
    clear = encode(Raster(64, 64, 4, bytes([0, 0, 0, 0]) * (64 * 64)))
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(img2img("example.png", mask=file(clear)))
        assert value_of(server) == f"emp/{server.uploads[-1].name}"


async def test_a_mask_without_an_image_file_is_refused_by_its_place(tmp_path: Path) -> None:
    graph = {**img2img(["2", 0], mask=file(PICTURE)), "2": slow()}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InvalidJob, match=r"payload\.prompt\.1\.inputs\.mask: a mask goes with an image"):
            await rig.run({"prompt": {**graph, "3": save("1")}})
        assert not server.prompts


async def test_a_mask_that_does_not_fit_is_told(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.fail(HttpFault("/upload/mask", "status", status=500))
        with pytest.raises(InvalidJob, match="could not put the mask"):
            await rig.run(img2img(file(PICTURE), mask=file(PICTURE)))


async def test_sound_is_uploaded_by_the_same_route(tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": file(SOUND, "voice.flac")}},
        "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "voice"}},
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run(graph)
        assert value_of(server, "audio") == f"emp/{server.uploads[0].name}"
        assert server.uploads[0].name.endswith(".flac")
        assert [one.media_type for one in result.artifacts] == ["audio/flac"]


@pytest.mark.parametrize(
    ("name", "field", "kind", "data", "where"),
    [
        ("LoadVideo", "file", Input("COMBO", {"options": [], "video_upload": True}), FILM, "emp/"),
        ("TheirVideo", "clip", Input((), {"video_upload": True}), FILM, "emp/"),
        ("TheirPath", "path", Input("STRING", {}), FILM, "emp/"),
        ("TheirList", "video", Input((), None, listed()), FILM, "emp-"),
        ("Load3D", "model_file", Input((), {"file_upload": True}, listed("3d")), MODEL, "3d/emp-"),
        ("Their3D", "mesh", Input((), {"file_upload": True}, listed("3d")), MODEL, "3d/emp-"),
    ],
)
async def test_a_file_lies_where_the_node_looks_for_it(
    tmp_path: Path, name: str, field: str, kind: Input, data: bytes, where: str
) -> None:
    node = loader(name, field, kind)
    if kind.choices is None:
        node = attrs.evolve(node, validates=frozenset({field}), validate=lambda inputs, site: {})
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(node)
        (server.folders.path("input") / "3d").mkdir()
        (server.folders.path("input") / "3d" / "other.glb").write_bytes(b"x")
        result = await rig.run({"1": {"class_type": name, "inputs": {field: file(data)}}})
        assert result.data["outputs"]["1"]["values"] == {"text": [str(len(data))]}
        assert value_of(server, field).startswith(where)
        assert inputs_of(server) == ["3d/other.glb"]


@pytest.mark.parametrize(
    ("node", "field", "data", "needed"),
    [
        ("LoadImage", "image", SOUND, "image/*"),
        ("LoadImage", "image", b"<!doctype html><title>Sign in</title>", "image/*"),
        ("LoadAudio", "audio", PICTURE, "audio/* or video/*"),
        ("LoadVideo", "file", SOUND, "video/* or image/*"),
    ],
)
async def test_a_file_that_the_node_cannot_load_is_refused_by_its_place(
    tmp_path: Path, node: str, field: str, data: bytes, needed: str
) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(loader("LoadVideo", "file", Input((), {"video_upload": True})))
        server.nodes.add(loader("Sink", "any", Input("*")))
        graph = {
            "5": {"class_type": node, "inputs": {field: file(data)}},
            "6": {"class_type": "Sink", "inputs": {"any": ["5", 0]}},
        }
        with pytest.raises(InputError, match=rf"^payload\.5\.inputs\.{field}: .*and {node} loads") as caught:
            await rig.run(graph)
        assert caught.value.message.endswith(needed)
        assert not server.uploads
        assert not server.prompts


# What goes wrong.


async def test_a_file_that_is_too_large_for_the_server_fails_the_job(tmp_path: Path) -> None:
    async with FakeComfyUI(max_upload_size=50_000) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InvalidJob, match="max-upload-size") as caught:
            await rig.run(img2img(file(PICTURE + bytes(100_000))))
        assert caught.value.details["reason"] == "too_large"
        assert not server.prompts


async def test_a_large_file_is_asked_about_before_it_is_sent(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with film.open("wb") as writing:
        writing.write(FILM)
        writing.truncate(40 * 2**20)
    async with FakeComfyUI(max_upload_size=35 * 2**20) as server, rigged(server.url, tmp_path / "store") as rig:
        server.nodes.add(loader("LoadVideo", "file", Input((), {"video_upload": True})))
        with pytest.raises(InvalidJob, match="at most 36,700,160"):
            await rig.run({"1": {"class_type": "LoadVideo", "inputs": {"file": {"$input": {"path": str(film)}}}}})
        assert server.requested("/features")
        assert not server.requested("/upload/image")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (HttpFault("/upload/image", "status", status=500), ServiceUnavailable),
        (HttpFault("/upload/image", "garbage"), ServiceUnavailable),
        (HttpFault("/upload/image", "drop"), ConnectionLost),
        (HttpFault("/upload/image", "status", status=400), InvalidJob),
    ],
)
async def test_an_upload_that_fails_has_the_right_error(
    tmp_path: Path, fault: HttpFault, error: type[Exception]
) -> None:
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        server.fail(fault)
        with pytest.raises(error):
            await rig.run(img2img(file(PICTURE)))
        assert not server.prompts


async def test_a_cancelled_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        fault = server.fail(HttpFault("/upload/image", "hang"))
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: rig.run(img2img(file(PICTURE))))
            await server.until(lambda: fault.seen > 0)
            group.cancel_scope.cancel()
        assert not server.prompts
        assert inputs_of(server) == []
        assert not [path for path in (tmp_path / ".data").rglob("*") if path.is_file()]


async def test_a_file_that_cannot_be_had_is_told_by_its_place(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(InputError, match=r"^payload\.workflow\.1\.inputs\.image: .*EMP_PRIVATE_HOSTS|may not be"):
            await rig.run({"workflow": img2img({"$input": {"url": f"{server.url}/view?filename=example.png"}})})
        assert not server.uploads


async def test_a_whole_job_from_image_to_image(tmp_path: Path) -> None:
    inverted = img2img(file(PICTURE))
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        once = await rig.run(inverted)
        twice = await rig.run(img2img(file(bytes_of(once.artifacts[0].url))), job_id="job-2")
        assert from_png(bytes_of(twice.artifacts[0].url)).rgb == CAT.rgb
