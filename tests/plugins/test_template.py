"""What `emp plugins new` makes works as it is: it is made, built, installed and tested here, away from the checkout."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from attrs import frozen

from emp_core.errors import ConfigError
from emp_core.jobs.model import JobSpec
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.template import make_plugin, template_files
from emp_core.queue.queue import JobQueue
from tests.connectors.web import serving

NAMES = ["ai", "sound-effects", "a_name-that-is-thirty-letters3"]


@frozen
class Installed:
    """A plugin that was made, built and installed.

    Attributes:
        folder: its source.
        site: the folder that it is installed in.
    """

    folder: Path
    site: Path

    def environ(self, **more: str) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMP_", "HUB_", "PYTEST"))}
        return {**kept, "PYTHONPATH": str(self.site), **more}

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    work = tmp_path_factory.mktemp("whisper")
    made = make_plugin("whisper", work / "emp-whisper", load_plugins())
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", work / "dist", made.folder],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = (work / "dist").glob("emp_whisper-0.1.0-*.whl")
    assert list((work / "dist").glob("emp_whisper-0.1.0.tar.gz"))
    with zipfile.ZipFile(wheel) as files:
        files.extractall(work / "site")
    return Installed(made.folder, work / "site")


def test_its_own_tests_pass_the_conformance_suite_among_them(whisper: Installed):
    ran = whisper.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-rN")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.search(r"(\d+) passed", ran.stdout)
    assert found, ran.stdout
    assert int(found[1]) >= 40


@pytest.fixture
async def service() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.Response()
        asked = await request.json()
        return web.json_response({"text": " ".join([asked["text"].upper()] * asked["times"])})

    async with serving(answer) as url:
        yield url


async def test_workers_finds_it_and_completes_a_job(
    whisper: Installed, service: str, queue: JobQueue, redis_url: str, tmp_path: Path
):
    environ = whisper.environ(
        WORKERS="whisper",
        HUB_REDIS_URL=redis_url,
        EMP_NAMESPACE=queue.settings.namespace,
        EMP_DATA_DIR=str(tmp_path),
        WHISPER_URL=service,
    )
    async with await anyio.open_process(
        [sys.executable, "-m", "emp_core.cli", "worker"], env=environ, stdout=subprocess.DEVNULL
    ) as worker:
        try:
            job = await queue.submit(JobSpec("whisper", {"text": "hello", "times": 2}))
            done = await queue.wait(job.id, timeout=60)
            # The plugin is not installed where the test runs, so that the worker is the first to look at it.
            wrong = await queue.wait((await queue.submit(JobSpec("whisper", {"text": 7}))).id, timeout=60)
        finally:
            worker.terminate()
            await worker.wait()
    assert done.error is None
    assert done.result is not None
    assert done.result["data"] == {"text": "HELLO HELLO"}
    [artifact] = done.result["artifacts"]
    assert artifact["name"] == "answer.txt"
    assert wrong.error is not None
    assert wrong.error.message == "the payload cannot be used: payload.text: expected a text, not a number"


def test_its_payloads_and_settings_are_told(whisper: Installed, tmp_path: Path):
    schema = json.loads(whisper.run("-m", "emp_core.cli", "services", "schema", "whisper").stdout)
    assert schema["title"] == "WhisperPayload"
    assert schema["required"] == ["text"]
    assert schema["properties"]["times"]["description"] == "how often."
    listed = json.loads(whisper.run("-m", "emp_core.cli", "plugins", "--json").stdout)["data"]
    [own] = [one for one in listed if one["name"] == "whisper"]
    assert own["ok"]
    assert own["version"] == "0.1.0"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_tidy_under_any_name(name: str, tmp_path: Path):
    made = make_plugin(name, tmp_path / "made", load_plugins())
    for arguments in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        ran = subprocess.run([sys.executable, "-m", "ruff", *arguments, made.folder], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["whisper", *NAMES])
def test_nothing_of_the_templates_name_is_left(name: str, tmp_path: Path):
    made = make_plugin(name, tmp_path / "made", load_plugins())
    texts = [*made.files, *((made.folder / file).read_text() for file in made.files)]
    assert not [text for text in texts if re.search("shout", text, re.IGNORECASE)]
    assert len(made.files) == len(list(template_files()))


def test_its_connector_is_short():
    [connector] = [text for path, text in template_files() if path.endswith("/connector.py")]
    assert len(connector.splitlines()) < 60


def test_its_ci_file_names_nobody():
    [ci] = [text for path, text in template_files() if path.endswith("ci.yml")]
    assert not re.search("emp|shout", ci, re.IGNORECASE)
    assert all(command in ci for command in ("ruff check", "ruff format", "mypy", "pytest", "python -m build"))


@pytest.mark.parametrize("name", ["emp-whisper", "emp_whisper"])
def test_the_packages_name_means_the_plugins(name: str, tmp_path: Path):
    made = make_plugin(name, tmp_path / "made", load_plugins())
    assert (made.name, made.distribution) == ("whisper", "emp-whisper")


@pytest.mark.parametrize("name", ["", "Whisper", "9lives", "a b", "a--b", "../up", "-x", "ä", "x" * 31, "emp-"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be the name of a plugin"):
        make_plugin(name, tmp_path / "made", load_plugins())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["echo", "core", "emp-core", "comfyui", "comfyui-remote"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="is installed here"):
        make_plugin(name, tmp_path / "made", load_plugins())


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        make_plugin("whisper", tmp_path, load_plugins())
    with pytest.raises(ConfigError, match="not empty"):
        make_plugin("whisper", tmp_path / "mine.txt", load_plugins())
    with pytest.raises(ConfigError, match="cannot be written"):
        make_plugin("whisper", tmp_path / "mine.txt" / "below", load_plugins())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_folder_has_the_packages_name_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = make_plugin("whisper", None, load_plugins())
    assert made.folder == Path("emp-whisper")
    assert (tmp_path / "emp-whisper" / "emp_whisper" / "plugin.py").is_file()
