"""How long uploaded files stay: until no job needs them."""

import os
from pathlib import Path

import anyio
import pytest
from emp_comfyui.held_files import HeldFiles
from emp_comfyui.testing import FakeComfyUI

from .rig import Told, rigged, save, slow
from .uploading import PICTURE, executed, file, img2img, inputs_of


def notes_of(server: FakeComfyUI) -> list[str]:
    return sorted(path.name for path in server.folders.path("input").glob("emp/.held/*/*"))


async def test_uploads_are_removed_after_the_job_where_the_folder_is_at_hand(tmp_path: Path) -> None:
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        await rig.run(img2img(file(PICTURE)))
        assert inputs_of(server) == notes_of(server) == []
        await rig.run(img2img(file(PICTURE)), job_id="job-2")
        assert executed(server) == [], "the same name, so what was made of it is cached"
        assert (server.folders.path("input") / "example.png").exists()


async def test_uploads_stay_where_the_folder_is_not_at_hand_or_should_stay(tmp_path: Path) -> None:
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.run(img2img(file(PICTURE)))
        assert len(inputs_of(server)) == 1
    async with (
        FakeComfyUI(tells_folders=True) as server,
        rigged(server.url, tmp_path, EMP_COMFYUI_KEEP_UPLOADS="1") as rig,
    ):
        await rig.run(img2img(file(PICTURE)), job_id="job-2")
        assert len(inputs_of(server)) == 1


async def test_nothing_is_made_in_a_folder_that_is_another_one(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with (
        FakeComfyUI() as server,
        rigged(server.url, tmp_path / "store", EMP_COMFYUI_INPUT_DIR=str(elsewhere)) as rig,
    ):
        await rig.run(img2img(file(PICTURE)))
        assert len(inputs_of(server)) == 1
    assert not any(elsewhere.iterdir())


async def test_uploads_of_a_job_that_fails_are_removed(tmp_path: Path) -> None:
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        broken = {**img2img(file(PICTURE)), "4": slow(fail_at_step=1), "5": save("4")}
        with pytest.raises(Exception, match="ProbeSlow"):
            await rig.run(broken)
        assert inputs_of(server) == []


async def test_a_file_that_two_jobs_use_stays_until_both_are_done(tmp_path: Path) -> None:
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ProbeSlow")
        held = {**img2img(file(PICTURE)), "4": slow(), "5": save("4")}
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: rig.run(held))
            await hold.reached()
            group.start_soon(lambda: rig.run(img2img(file(PICTURE)), job_id="job-2"))
            await server.until(lambda: len(server.prompts) == 2)
            assert notes_of(server) == ["job-2.1", "job.1"]
            await server.until(lambda: len(server.queue.pending) == 1)
            hold.release()
        assert inputs_of(server) == notes_of(server) == []


async def test_an_adopted_run_uploads_nothing_again_and_is_tidied_up_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = img2img(file(PICTURE))
    async with FakeComfyUI(tells_folders=True) as server, rigged(server.url, tmp_path) as rig:
        hold = server.hold("ImageInvert")
        told = Told()
        with monkeypatch.context() as killed:
            for name in ("uploads.Uploads.tidy", "run.PromptRun.stop"):
                killed.setattr(f"emp_comfyui.{name}", nothing)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: rig.run(graph, told))
                await hold.reached()
                group.cancel_scope.cancel()
        assert len(notes_of(server)) == 1
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: rig.run(graph, earlier=told.checkpoints[-1], attempt=2))
            await server.until(lambda: len(server.requested("/queue")) > 0)
            hold.release()
        assert len(server.uploads) == 1
        assert inputs_of(server) == notes_of(server) == []


async def nothing(_: object) -> None:
    """What a killed worker does at its end."""


async def test_what_killed_workers_left_is_removed_after_a_week(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    name = "emp/" + "a" * 32 + ".png"
    (folder / "emp").mkdir(parents=True)
    (folder / name).write_bytes(b"x")
    held = HeldFiles(folder)
    assert held.hold(name, 1, "job.1")
    assert held.let_go_of_left() == []
    [note] = folder.glob("emp/.held/*/*")
    os.utime(note, (1, 1))
    assert held.let_go_of_left() == [name]
    assert not (folder / name).exists()


@pytest.mark.parametrize(
    "name",
    ["example.png", "emp/cat.png", "../secret.png", "emp/../../secret.png", "emp/" + "a" * 32 + "/x", "3d/cat.glb"],
)
def test_only_files_with_our_names_are_ever_removed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "input"
    (folder / "emp").mkdir(parents=True)
    (folder / "3d").mkdir()
    for each in (
        tmp_path / "secret.png",
        folder / "example.png",
        folder / "emp" / "cat.png",
        folder / "3d" / "cat.glb",
    ):
        each.write_bytes(b"x")
    assert not HeldFiles(folder).hold(name, None, "job.1")
    assert HeldFiles(folder).let_go("job", 9) == []


def test_a_link_is_not_taken_for_an_upload(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    (folder / "emp").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"x")
    name = "emp/" + "a" * 32 + ".png"
    (folder / name).symlink_to(tmp_path / "secret")
    assert not HeldFiles(folder).hold(name, None, "job.1")


def test_a_job_lets_go_of_its_own_attempts_alone(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    (folder / "emp").mkdir(parents=True)
    name = "emp/" + "a" * 32 + " (1).png"
    (folder / name).write_bytes(b"x")
    held = HeldFiles(folder)
    for holder in ("job.1", "job.2", "job.10", "job.1.1", "other.1"):
        assert held.hold(name, 1, holder)
    assert held.let_go("job", 2) == []
    assert sorted(path.name for path in folder.glob("emp/.held/*/*")) == ["job.1.1", "job.10", "other.1"]
    assert (held.let_go("other", 1), held.let_go("job.1", 1)) == ([], [])
    assert held.let_go("job", 10) == [name]
    assert not any(folder.glob("emp/.held/*"))
