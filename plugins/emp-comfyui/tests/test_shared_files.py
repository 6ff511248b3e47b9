"""Outputs are read from the file system where the server's folders are at hand, and only if they are surely the same files."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from emp_comfyui.shared_files import folders_told, is_this_machine
from emp_comfyui.testing import FakeComfyUI, Faults

from emp_core.errors import JobFailed

from .rig import bytes_of, image, one_image, rigged, save


def fetched(server: FakeComfyUI) -> list[str]:
    """The ways in which files were asked for."""
    return [request.method for request in server.requested("/view")]


async def test_files_of_a_server_on_this_machine_are_read_from_its_folders(tmp_path: Path):
    graph = {
        "1": image(batch=2),
        "2": save("1", "deep/er/a"),
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        result = await rig.run({"prompt": graph, "temp_outputs": True})
        assert fetched(server) == ["HEAD"] * 4
        served = sorted(path.read_bytes() for path in server.folders.path("output").rglob("*.png"))
    stored = sorted(bytes_of(one.url) for one in result.artifacts if one.metadata["type"] == "output")
    assert stored == served
    assert {artifact.media_type for artifact in result.artifacts} == {"image/png"}


async def test_a_server_that_does_not_tell_its_folders_is_asked_for_the_files(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(one_image())
        assert fetched(server) == ["GET"]


async def test_the_operator_names_the_folder_of_a_shared_file_system(tmp_path: Path):
    async with FakeComfyUI(output_dir=tmp_path / "outputs") as server:
        named = {"EMP_COMFYUI_OUTPUT_DIR": str(tmp_path / "outputs")}
        async with rigged(server.url, tmp_path / "store", **named) as rig:
            assert len((await rig.run(one_image())).artifacts) == 1
        assert fetched(server) == ["HEAD"]


async def test_reading_files_can_be_forbidden(tmp_path: Path):
    forbidden = {"EMP_COMFYUI_READ_FILES": "false"}
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path, **forbidden) as rig:
        await rig.run(one_image())
        assert fetched(server) == ["GET"]


async def test_a_file_of_the_same_name_that_is_another_one_is_not_taken(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "out_00001_.png").write_bytes(b"somebody else's")
    named = {"EMP_COMFYUI_OUTPUT_DIR": str(elsewhere)}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path / "store", **named) as rig:
        result = await rig.run(one_image())
        assert fetched(server) == ["HEAD", "GET"]
    assert bytes_of(result.artifacts[0].url).startswith(b"\x89PNG")


async def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG secret")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    async with FakeComfyUI(output_dir=outputs) as server:
        async with rigged(server.url, tmp_path / "store", EMP_COMFYUI_OUTPUT_DIR=str(outputs)) as rig:
            await rig.run(one_image(), job_id="a")
            written = outputs / "out_00001_.png"
            written.unlink()
            written.symlink_to(secret)
            server.requests.clear()
            # Answered from the server's cache: it names the file that is a link by now, and would follow it.
            await rig.run(one_image(), job_id="b")
        assert fetched(server) == ["GET"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).mkdir()], ids=["pipe", "folder"])
async def test_what_is_no_file_is_not_read(tmp_path: Path, make: Any):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    make(outputs / "out_00001_.png")
    named = {"EMP_COMFYUI_OUTPUT_DIR": str(outputs)}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path / "store", **named) as rig:
        assert len((await rig.run(one_image())).artifacts) == 1
        assert fetched(server) == ["GET"]


async def test_a_file_that_the_server_does_not_give_is_gone_even_if_it_lies_there(tmp_path: Path):
    gone = FakeComfyUI(tells_folders=True, faults=Faults(missing_outputs=True))
    async with gone as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(JobFailed, match="does not give it"):
            await rig.run(one_image())


async def test_the_limit_of_size_holds_for_files_that_are_read(tmp_path: Path):
    small = {"EMP_COMFYUI_MAX_OUTPUT_BYTES": "10"}
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path, **small) as rig:
        with pytest.raises(JobFailed, match="larger than the 10 bytes"):
            await rig.run(one_image())
    assert rig.stored == []


@pytest.mark.parametrize(
    ("argv", "output", "temp"),
    [
        (["main.py", "--output-directory", "/data/out", "--temp-directory", "/data"], "/data/out", "/data/temp"),
        (["main.py", "--output-directory=/data/out"], "/data/out", None),
        (["/opt/ComfyUI/main.py", "--listen"], "/opt/ComfyUI/output", "/opt/ComfyUI/temp"),
        (["main.py", "--base-directory", "/srv/comfy"], "/srv/comfy/output", "/srv/comfy/temp"),
        (["main.py", "--output-directory", "relative"], None, None),
        (["main.py"], None, None),
        (["main.py", "--output-directory"], None, None),
        ([], None, None),
        (None, None, None),
        ([1, None], None, None),
    ],
)
def test_folders_are_learned_from_the_servers_command_line(argv: Any, output: str | None, temp: str | None):
    told = folders_told(argv)
    assert told.get("output") == (None if output is None else Path(output))
    assert told.get("temp") == (None if temp is None else Path(temp))


def test_this_machine_is_told_from_others_without_a_name_server():
    assert all(map(is_this_machine, ("127.0.0.1", "localhost", "127.8.8.8", "::1", "[::1]", socket.gethostname())))
    assert not any(map(is_this_machine, ("198.51.100.1", "comfy.example.org", "2001:db8::1", "")))
