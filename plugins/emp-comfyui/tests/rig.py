"""A connector with a job's context around it, as a worker would make it, and small workflows."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
from attrs import field, frozen
from emp_comfyui.connector import ComfyUIWebSocketConnector

from emp_core.config import Settings
from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext, Preview
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.model import Job, JobError
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.storage.local import LocalStore

Graph = dict[str, Any]

BY_FRAMES = {"EMP_COMFYUI_POLL_S": "30"}
"""Polls so seldom that only frames can tell."""
QUICK = {"EMP_COMFYUI_POLL_S": "0.02", "EMP_COMFYUI_GONE_S": "0.2", "EMP_COMFYUI_STALL_S": "5"}


@frozen
class Told:
    """What a job's context was told."""

    percents: list[float] = field(factory=list)
    messages: list[str | None] = field(factory=list)
    previews: list[Preview] = field(factory=list)
    checkpoints: list[str] = field(factory=list)
    _awaited: dict[str, anyio.Event] = field(factory=dict)

    async def said(self, message: str) -> None:
        """Wait until the job's message is this one."""
        await self._awaited.setdefault(message, anyio.Event()).wait()

    def report(self, percent: float, message: str | None, preview: Preview | None) -> None:
        self.percents.append(percent)
        self.messages.append(message)
        if message in self._awaited:
            self._awaited[message].set()
        if preview is not None:
            self.previews.append(preview)

    async def checkpoint(self, service_job_id: str) -> None:
        self.checkpoints.append(service_job_id)


@frozen
class Rig:
    """A connected connector, and the folder that its outputs go to."""

    connector: ComfyUIWebSocketConnector
    folder: Path

    def job(
        self,
        payload: Any,
        *,
        job_id: str = "job",
        earlier: str | None = None,
        attempt: int = 1,
        error: JobError | None = None,
    ) -> Job:
        return Job(
            job_id,
            "comfyui",
            "comfyui",
            JobState.ACTIVE,
            payload=payload,
            attempt=attempt,
            service_job_id=earlier,
            error=error,
            requirement=Requirement("comfyui"),
        )

    async def run(self, payload: Any, told: Told | None = None, **about: Any) -> JobResult:
        job = self.job(payload, **about)
        told = told or Told()
        store = LocalStore(self.folder)
        taking = InputTaking.from_settings(
            Settings(data_dir=self.folder / ".data", input_folders=(str(self.folder.parent),)), store=store
        )
        inputs = taking.of(job)
        context = JobContext(job, store=store, inputs=inputs, report=told.report, save_checkpoint=told.checkpoint)
        try:
            return await self.connector.process_job(job, context)
        finally:
            await inputs.aclose()
            await taking.aclose()

    @property
    def pictures(self) -> list[str]:
        """The paths of all stored PNG files, below the job's folder."""
        return sorted(str(path.relative_to(self.folder / "job")) for path in self.folder.rglob("*.png"))

    @property
    def stored(self) -> list[str]:
        """The names of all stored files, without the job's folder and the attempt."""
        # The store keeps what it knows of its files in .emp.
        return sorted(path.name.split("-", 2)[2] for path in self.folder.glob("[!.]*/**/*") if path.is_file())


@contextlib.asynccontextmanager
async def rigged(url: str, folder: Path, **environ: str) -> AsyncIterator[Rig]:
    parts = urlsplit(url)
    address = {"COMFYUI_HOST": parts.hostname or "", "COMFYUI_PORT": str(parts.port)}
    connector = ComfyUIWebSocketConnector(ServiceConfig("comfyui", {**QUICK, **address, **environ}))
    try:
        yield Rig(connector, folder)
    finally:
        await connector.disconnect()


def bytes_of(artifact_url: str) -> bytes:
    return Path(unquote(urlsplit(artifact_url).path)).read_bytes()


def image(color: int = 255, size: int = 16, batch: int = 1) -> Mapping[str, Any]:
    return {
        "class_type": "EmptyImage",
        "inputs": {"width": size, "height": size, "batch_size": batch, "color": color},
    }


def save(source: str, prefix: str = "out") -> Mapping[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": prefix}}


def slow(steps: int = 4, seconds: float = 0.0, **inputs: Any) -> Mapping[str, Any]:
    given = {"steps": steps, "seconds_per_step": seconds, "report_progress": True, "preview": "none", "fail_at_step": 0}
    return {"class_type": "ProbeSlow", "inputs": {**given, "seed": 0, **inputs}}


def one_image(color: int = 255, prefix: str = "out") -> Graph:
    return {
        "1": image(color),
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": save("2", prefix),
    }


def slow_image(steps: int = 4, **inputs: Any) -> Graph:
    return {"1": slow(steps, **inputs), "2": save("1", "slow")}


def checkpoint_image(ckpt_name: str) -> Graph:
    """A picture out of a checkpoint's VAE."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ckpt_name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": save("3"),
    }
