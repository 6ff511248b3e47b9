"""An archive's contents are in their folder, whole, and nowhere else."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from emp_machine.steps import Unpack

from emp_core.errors import InstallError


def packed(path: Path, *members: tuple[str, bytes | None, str]) -> Path:
    """A tar with files (name, content, "") and links (name, None, where they lead)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content, target in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


# Newer ones warn of what an older one cannot know.
AS_AN_OLDER_ONE = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")


@pytest.fixture(params=["as this Python does", pytest.param("as an older one does", marks=AS_AN_OLDER_ONE)])
def any_python(request, monkeypatch):
    """With the filters of tarfile, and without them, as before Python 3.11.4."""
    if request.param == "as an older one does":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


async def test_files_links_and_rights_are_there_and_it_is_found_done(any_python, telling, tmp_path):
    archive = packed(tmp_path / "it.tgz", ("bin/tool", b"run", ""), ("bin/alias", None, "tool"))
    step = Unpack("unpack", archive, tmp_path / "it")
    assert not await step.is_done()
    await step.do(telling)
    assert await step.is_done()
    assert (tmp_path / "it/bin/alias").read_bytes() == b"run"
    assert (tmp_path / "it/bin/tool").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "member",
    [("../out", b"1", ""), ("/abs/out", b"1", ""), ("link", None, "../../out"), ("link", None, "/etc/passwd")],
)
async def test_what_would_leave_the_folder_never_does(any_python, telling, tmp_path, member):
    archive = packed(tmp_path / "it.tgz", member)
    try:
        await Unpack("unpack", archive, tmp_path / "a" / "it").do(telling)
    except InstallError:
        assert not (tmp_path / "a" / "it").exists()
    assert strays(tmp_path, tmp_path / "a" / "it") == []


def strays(folder: Path, own: Path) -> list[Path]:
    """What came to lie elsewhere."""
    found = [path for path in folder.rglob("out") if not path.is_relative_to(own)]
    return [*found, *(path for path in [Path("/abs/out")] if path.exists())]


async def test_another_archive_takes_the_place_of_the_first(telling, tmp_path):
    archive = packed(tmp_path / "it.tgz", ("one", b"1", ""))
    step = Unpack("unpack", archive, tmp_path / "it")
    await step.do(telling)
    packed(archive, ("two", b"2", ""))
    assert not await step.is_done()
    await step.do(telling)
    assert sorted(one.name for one in (tmp_path / "it").iterdir()) == ["emp-unpacked.json", "two"]


async def test_a_zip_is_read_too_and_a_damaged_archive_told(telling, tmp_path):
    with zipfile.ZipFile(tmp_path / "it.zip", "w") as made:
        made.writestr("a/b", "c")
    await Unpack("unpack", tmp_path / "it.zip", tmp_path / "it").do(telling)
    assert (tmp_path / "it/a/b").read_text() == "c"
    (tmp_path / "bad.tgz").write_bytes(b"no archive")
    with pytest.raises(InstallError, match="cannot be unpacked"):
        await Unpack("unpack", tmp_path / "bad.tgz", tmp_path / "bad").do(telling)


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd: apt install zstd")
async def test_zstandard_is_read_by_the_program_tar(telling, tmp_path):
    (tmp_path / "tool").write_text("run")
    subprocess.run(  # noqa: ASYNC221 - a test's command
        ["tar", "--zstd", "-cf", str(tmp_path / "it.tar.zst"), "-C", str(tmp_path), "tool"], check=True
    )
    await Unpack("unpack", tmp_path / "it.tar.zst", tmp_path / "it").do(telling)
    assert (tmp_path / "it/tool").read_text() == "run"
