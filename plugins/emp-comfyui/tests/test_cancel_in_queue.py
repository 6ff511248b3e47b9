"""A job that is cancelled in the queue is stopped at its ComfyUI server within a second, as the server itself sees it."""

from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from emp_comfyui.testing import FakeComfyUI
from emp_comfyui.workflow import Workflow

from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import WorkerStarter

from .rig import QUICK, one_image, rigged, slow_image
from .test_cluster_worker import cluster_of
from .test_connector_cancel import VERSIONS

WITHIN_S = 1.0


async def serve(server: FakeComfyUI, start_worker: WorkerStarter) -> None:
    """A worker for this server."""
    parts = urlsplit(server.url)
    address = {"COMFYUI_HOST": parts.hostname or "", "COMFYUI_PORT": str(parts.port)}
    await start_worker(cluster_of({**QUICK, **address}))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_job_that_runs_is_interrupted(queue: JobQueue, start_worker: WorkerStarter, version: str) -> None:
    async with FakeComfyUI(version=version) as server:
        await serve(server, start_worker)
        hold = server.hold("ProbeSlow", at_step=2)
        job = await queue.submit(JobSpec("comfyui", payload=slow_image()))
        await hold.reached()
        began = anyio.current_time()
        await queue.cancel(job.id)
        await server.until(lambda: any(one.effective for one in server.interrupts))
        took_s = anyio.current_time() - began
        hold.release()
        await server.until(lambda: bool(server.history))
        (entry,) = server.history.values()
        done = await queue.wait(job.id, timeout=60)
    assert took_s < WITHIN_S
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert done.status is JobState.CANCELLED


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_job_that_waits_at_the_server_is_taken_out_of_its_queue_and_others_are_left_alone(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path, version: str
) -> None:
    async with FakeComfyUI(version=version) as server, rigged(server.url, tmp_path) as somebody:
        hold = server.hold("ProbeSlow", at_step=2)
        workflow = Workflow.from_payload(slow_image())
        await somebody.connector.comfyui.submit(
            workflow, prompt_id="11111111-1111-4111-8111-111111111111", client_id="somebody"
        )
        await hold.reached()
        await serve(server, start_worker)
        job = await queue.submit(JobSpec("comfyui", payload=one_image()))
        await server.until(lambda: server.queue.remaining() == 2)
        began = anyio.current_time()
        await queue.cancel(job.id)
        await server.until(lambda: server.queue.remaining() == 1)
        took_s = anyio.current_time() - began
        hold.release()
        await server.until(lambda: server.queue.remaining() == 0)
        (entry,) = server.history.values()
        done = await queue.wait(job.id, timeout=60)
    assert took_s < WITHIN_S
    assert entry["status"]["status_str"] == "success"
    assert server.interrupts == []
    assert done.status is JobState.CANCELLED


async def test_a_job_that_waits_in_our_queue_never_reaches_the_server(
    queue: JobQueue, start_worker: WorkerStarter
) -> None:
    async with FakeComfyUI() as server:
        await serve(server, start_worker)
        hold = server.hold("ProbeSlow", at_step=2)
        first = await queue.submit(JobSpec("comfyui", payload=slow_image()))
        await hold.reached()
        second = await queue.submit(JobSpec("comfyui", payload=one_image()))
        await queue.cancel(second.id)
        done = await queue.wait(second.id, timeout=60)
        third = await queue.submit(JobSpec("comfyui", payload=one_image(1)))
        hold.release()
        ended = [await queue.wait(job.id, timeout=60) for job in (first, third)]
        assert len(server.prompts) == 2
    assert done.status is JobState.CANCELLED
    assert [job.status for job in ended] == [JobState.COMPLETED] * 2
