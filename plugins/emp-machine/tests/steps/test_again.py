"""A step that is killed while it is done again is not done, whatever was done before."""

import io
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from attrs import define
from emp_machine.steps import Command, GitCheckout, PipInstall, Unpack, VirtualEnv
from emp_machine.testing.packages import quick_python, write_wheel

from emp_core.services.installer import Step, StepContext


class Killed(BaseException):
    """What a kill looks like from within."""


@define
class Dying:
    """Lets so many commands run to their end."""

    told: StepContext
    left: int

    def progress(self, fraction: float, message: str = "") -> None:
        self.told.progress(fraction, message)

    def log(self, line: str) -> None:
        self.told.log(line)

    def fetched(self, what: str, pin: str) -> None:
        self.told.fetched(what, pin)

    async def run(
        self, argv: Sequence[str], *, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        await self.told.run(argv, cwd=cwd, environ=environ)


async def killed_anywhere_it_is_not_done(step: Step, telling: StepContext) -> None:
    for left in range(len(step.commands())):
        await step.do(telling)
        assert await step.is_done()
        with pytest.raises(Killed):
            await step.do(Dying(telling, left))
        assert not await step.is_done(), f"killed after {left} of its commands"


@pytest.fixture
def venv(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> VirtualEnv:
    python = quick_python(tmp_path_factory.getbasetemp() / "python")
    return VirtualEnv("make it", tmp_path / "venv", python)


async def test_a_repository(repository, telling, tmp_path):
    repository.commit(main_py="1")
    await killed_anywhere_it_is_not_done(GitCheckout("get it", repository.url, tmp_path / "it", "main"), telling)


async def test_a_virtual_environment(venv, telling):
    await killed_anywhere_it_is_not_done(venv, telling)


async def test_what_pip_installs(venv, telling, tmp_path):
    write_wheel(tmp_path / "wheels", "tiny")
    await venv.do(telling)
    options = ["--no-index", "--find-links", str(tmp_path / "wheels")]
    await killed_anywhere_it_is_not_done(PipInstall("install it", venv, packages=["tiny"], options=options), telling)


async def test_a_command(telling, tmp_path):
    await killed_anywhere_it_is_not_done(Command("run it", tmp_path, ["true"]), telling)


async def test_an_archive(telling, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("bin/one", "lib/two"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    (tmp_path / "it.tgz").write_bytes(packed.getvalue())
    step = Unpack("unpack it", tmp_path / "it.tgz", tmp_path / "it")
    await step.do(telling)
    assert await step.is_done()
    whole = shutil.rmtree

    def half(folder: Path, *, ignore_errors: bool = False) -> None:
        if folder != step.folder:
            return whole(folder, ignore_errors=ignore_errors)
        (folder / "lib" / "two").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            await step.do(telling)
    assert not await step.is_done()


async def test_an_environment_whose_python_became_another_one_is_made_again(venv, telling):
    await venv.do(telling)
    [packages] = (venv.folder / "lib").iterdir()
    packages.rename(packages.with_name("python3.1"))
    assert not await venv.is_done()
    await venv.do(telling)
    assert await venv.is_done()


async def test_a_command_is_run_again_for_another_version_and_in_another_environment(telling, tmp_path):
    def command(version: str) -> Command:
        return Command("run it", tmp_path, ["true"], of=[version], remembered_in=tmp_path / "venv")

    await command("v1").do(telling)
    assert await command("v1").is_done()
    assert not await command("v2").is_done()
    shutil.rmtree(tmp_path / "venv")
    assert not await command("v1").is_done()
