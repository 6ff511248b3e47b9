"""What tests of inputs are made with."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from attrs import define, evolve

from emp_core.config import Settings
from emp_core.inputs.fetching import JobInputs
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.inputs import InputRef
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.local import LocalStore

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)
MP4 = b"\0\0\0\x20ftypisom" + bytes(40)
HTML = b"<!DOCTYPE html><title>Sign in</title>"


def ref(**said: Any) -> InputRef:
    return InputRef.from_payload({"$input": said})


def job(job_id: str = "job-1", customer: str | None = None) -> Job:
    return Job(
        job_id, "echo", "echo", JobState.ACTIVE, requirement=Requirement.plain("echo"), customer_id=customer, attempt=1
    )


@define
class Pauses:
    """Stands for waiting: keeps what was asked for."""

    told: list[float]

    async def __call__(self, seconds: float) -> None:
        self.told.append(seconds)


def taking(folder: Path, **settings: Any) -> InputTaking:
    """A worker's side of inputs; all of it below one folder."""
    settings.setdefault("private_hosts", ("127.0.0.1",))
    made = InputTaking.from_settings(
        Settings(data_dir=folder / "data", **settings), store=LocalStore(folder / "artifacts")
    )
    made.web = evolve(made.web, pause=Pauses([]))
    return made


@contextlib.asynccontextmanager
async def attempt(ready: InputTaking, job: Job, **options: Any) -> AsyncIterator[JobInputs]:
    """The files of one attempt."""
    inputs = ready.of(job, **options)
    try:
        yield inputs
    finally:
        await inputs.aclose()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
