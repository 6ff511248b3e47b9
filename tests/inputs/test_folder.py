"""Files of jobs are gone when their attempt is over, whatever becomes of the worker."""

import sys
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from emp_core.errors import InputUnavailable
from emp_core.inputs.folder import AttemptFolder, WorkFolders

from .sources import files_below, names_in


async def test_a_worker_whose_jobs_have_no_files_writes_nothing(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path / "inputs")
    await folders.sweep()
    async with aclosing(AttemptFolder(folders)):
        pass
    await folders.aclose()
    assert not names_in(tmp_path)


async def test_an_attempts_files_are_private_and_gone_at_its_end(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path / "inputs")
    async with aclosing(AttemptFolder(folders)) as one, aclosing(AttemptFolder(folders)) as another:
        paths = [await one.new_file(), await one.new_file(), await another.new_file()]
        for path in paths:
            path.write_bytes(b"x")
            assert path.parent.stat().st_mode & 0o077 == 0
        assert paths[0].parent == paths[1].parent != paths[2].parent
    assert not any(path.parent.exists() for path in paths)
    await folders.aclose()
    assert not names_in(tmp_path / "inputs")


async def test_files_of_a_cancelled_attempt_are_gone_too(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path / "inputs")
    began = anyio.Event()
    paths: list[Path] = []

    async def attempt() -> None:
        async with aclosing(AttemptFolder(folders)) as folder:
            paths.append(await folder.new_file())
            paths[0].write_bytes(b"x")
            began.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(attempt)
        await began.wait()
        group.cancel_scope.cancel()
    assert not paths[0].parent.exists()
    await folders.aclose()


async def test_what_a_killed_worker_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    program = (
        "import os, sys, anyio, pathlib\n"
        "from emp_core.inputs.folder import AttemptFolder, WorkFolders\n"
        "async def main():\n"
        "    folder = AttemptFolder(WorkFolders(pathlib.Path(sys.argv[1])))\n"
        "    (await folder.new_file()).write_bytes(b'left')\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    assert (await anyio.run_process([sys.executable, "-c", program, str(tmp_path)], check=False)).returncode == -9
    assert [path.read_bytes() for path in files_below(tmp_path) if path.stat().st_size] == [b"left"]
    await WorkFolders(tmp_path).sweep()
    assert not names_in(tmp_path)


async def test_the_files_of_a_living_worker_are_left_alone(tmp_path: Path) -> None:
    living = WorkFolders(tmp_path)
    async with aclosing(AttemptFolder(living)) as folder:
        path = await folder.new_file()
        path.write_bytes(b"in use")
        await WorkFolders(tmp_path).sweep()
        assert path.read_bytes() == b"in use"
    await living.aclose()


async def test_what_is_not_ours_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep").write_bytes(b"")
    (tmp_path / "worker-0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "worker-0.lock").symlink_to(tmp_path / "elsewhere" / "keep")
    (tmp_path / "notes").write_bytes(b"")
    await WorkFolders(tmp_path).sweep()
    assert (tmp_path / "elsewhere" / "keep").exists()
    assert (tmp_path / "notes").exists()


async def test_a_folder_that_somebody_cleaned_up_is_made_again(tmp_path: Path) -> None:
    folders = WorkFolders(tmp_path / "inputs")
    async with aclosing(AttemptFolder(folders)) as folder:
        left = await folder.new_file()
        for path in sorted((tmp_path / "inputs").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert not left.parent.exists()
    async with aclosing(AttemptFolder(folders)) as folder:
        (await folder.new_file()).write_bytes(b"x")
    await folders.aclose()


async def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "inputs").write_bytes(b"a file")
    async with aclosing(AttemptFolder(WorkFolders(tmp_path / "inputs"))) as folder:
        with pytest.raises(InputUnavailable, match="EMP_DATA_DIR"):
            await folder.new_file()
