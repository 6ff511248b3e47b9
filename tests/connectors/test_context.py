"""What a connector may do with the world: where a job runs, what it has stored, and trouble that it survives."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from emp_core.connectors.context import JobContext, Preview
from emp_core.errors import StorageUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.storage.local import LocalStore


class Sink:
    def __init__(self) -> None:
        self.percents: list[float] = []
        self.checkpoints: list[str] = []
        self.warnings: list[str] = []

    def report(self, percent: float, message: str | None, preview: Preview | None) -> None:
        self.percents.append(percent)

    async def checkpoint(self, service_job_id: str) -> None:
        self.checkpoints.append(service_job_id)

    async def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def sink() -> Sink:
    return Sink()


def context(folder: Path, sink: Sink, *, earlier: str | None = None, store: ArtifactStore | None = None) -> JobContext:
    job = Job("j", "echo", "echo", JobState.ACTIVE, attempt=1, service_job_id=earlier, requirement=Requirement("echo"))
    return JobContext(
        job, store=store or LocalStore(folder), report=sink.report, save_checkpoint=sink.checkpoint, warn=sink.warn
    )


async def test_a_checkpoint_names_the_server_where_there_are_several(tmp_path: Path, sink: Sink) -> None:
    job = context(tmp_path, sink)
    await job.checkpoint("run-1")
    job.run_at("gpu 2@night")
    await job.checkpoint("run-2")
    assert sink.checkpoints == ["run-1", "run-2@gpu 2@night"]


@pytest.mark.parametrize("endpoint", ["gpu1", "gpu #1", "gpu#1", "a@b#2#3", "#7"])
@pytest.mark.parametrize("moves", [0, 1, 12])
async def test_a_checkpoint_keeps_how_often_a_job_has_moved(
    tmp_path: Path, sink: Sink, endpoint: str, moves: int
) -> None:
    job = context(tmp_path, sink)
    job.run_at(endpoint, moves=moves)
    await job.checkpoint("run-1")
    later = context(tmp_path, sink, earlier=sink.checkpoints[0])
    assert (later.service_job_id, later.endpoint, later.moves) == ("run-1", endpoint, moves)
    later.run_at("another")
    assert later.moves == moves


async def test_a_run_that_was_left_at_a_server_counts_at_that_server_alone(tmp_path: Path, sink: Sink) -> None:
    job = context(tmp_path, sink, earlier="run-2@gpu 2@night")
    seen = [(job.service_job_id, job.endpoint)]
    for endpoint in ("gpu 2@night", "gpu1"):
        job.run_at(endpoint)
        seen.append((job.service_job_id, job.endpoint))
    assert seen == [("run-2", "gpu 2@night"), ("run-2", "gpu 2@night"), (None, "gpu1")]


async def test_without_several_servers_the_services_id_is_what_it_was(tmp_path: Path, sink: Sink) -> None:
    job = context(tmp_path, sink, earlier="run-1")
    assert (job.service_job_id, job.endpoint) == ("run-1", None)


async def test_progress_that_begins_again_elsewhere_does_not_fall(tmp_path: Path, sink: Sink) -> None:
    job = context(tmp_path, sink)
    job.run_at("a")
    await job.progress(0.6)
    job.run_at("b")
    await job.progress(0.1)
    await job.progress(0.7)
    assert sink.percents == [60.0, 60.0, 70.0]


async def test_it_is_known_whether_anything_was_put_out_that_cannot_be_taken_back(tmp_path: Path, sink: Sink) -> None:
    file, text = context(tmp_path, sink), context(tmp_path, sink)
    before = (file.has_put_out, text.has_put_out)
    await file.progress(0.5)
    await file.save(b"x", "x.bin", "application/octet-stream")
    await text.text("Once upon")
    assert (before, file.has_put_out, text.has_put_out) == ((False, False), True, True)


async def test_trouble_is_told(tmp_path: Path, sink: Sink, caplog: pytest.LogCaptureFixture) -> None:
    await context(tmp_path, sink).warn("gpu1 went away; begun again at gpu2")
    assert sink.warnings == ["gpu1 went away; begun again at gpu2"]
    assert "gpu1 went away" in caplog.text


class Watched(LocalStore):
    """Tells whether a file was there when the store confirmed it, and fails when told to."""

    def __init__(self, root: Path, file: Path, *, fails: bool = False) -> None:
        super().__init__(root)
        self.file, self.fails = file, fails
        self.was_there: bool | None = None

    async def put(self, key: str, data: Any, **how: Any) -> StoredObject:
        stored = await super().put(key, data, **how)
        self.was_there = self.file.exists()
        if self.fails:
            raise StorageUnavailable("the last word of the upload was lost")
        return stored


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat" * 1_000_000)
    return path


def is_there(file: Path) -> bool:
    return file.exists()


async def test_a_file_is_removed_when_the_store_has_confirmed_it(tmp_path: Path, sink: Sink, file: Path) -> None:
    store = Watched(tmp_path / "store", file)
    artifact = await context(tmp_path, sink, store=store).save_file(file, "image/png", remove=True)
    assert (artifact.name, artifact.size_bytes) == ("cat.png", 3_000_000)
    assert store.was_there
    assert not is_there(file)
    assert (tmp_path / "store" / "j" / "1-0-cat.png").read_bytes() == b"cat" * 1_000_000


async def test_a_file_stays_when_the_upload_is_not_confirmed(tmp_path: Path, sink: Sink, file: Path) -> None:
    job = context(tmp_path, sink, store=Watched(tmp_path / "store", file, fails=True))
    with pytest.raises(StorageUnavailable):
        await job.save_file(file, "image/png", remove=True)
    assert is_there(file)


async def test_a_file_stays_when_nobody_asks_for_its_removal(tmp_path: Path, sink: Sink, file: Path) -> None:
    artifact = await context(tmp_path / "store", sink).save_file(file, "image/png", name="deep/hero.png")
    assert (artifact.name, is_there(file)) == ("hero.png", True)


async def test_a_file_that_cannot_be_removed_is_trouble_for_the_log_alone(
    tmp_path: Path, sink: Sink, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(anyio.Path, "unlink", refused)
    assert (await context(tmp_path / "store", sink).save_file(file, "image/png", remove=True)).size_bytes == 3_000_000
    assert "cannot be removed" in caplog.text


async def test_outputs_that_are_stored_side_by_side_have_names_of_their_own(tmp_path: Path, sink: Sink) -> None:
    job = context(tmp_path, sink)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(job.save, b"x", "cat.png", "image/png")
    assert sorted(path.name for path in (tmp_path / "j").iterdir()) == [f"1-{index}-cat.png" for index in range(5)]
