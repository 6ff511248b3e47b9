"""One queue, one worker process, three services, each of which is stopped and started once: every job completes."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from attrs import frozen
from emp_comfyui.testing import FakeComfyUI
from emp_ollama.testing import FakeOllama
from emp_openai.testing import FakeOpenAI

from emp_core.config import Settings
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue

PATIENCE_S = 120.0
KILLED_AFTER = 25
"""Jobs that a service was given before it is stopped."""


def picture(number: int) -> JobSpec:
    sampled = {"steps": 3, "seconds_per_step": 0.0, "report_progress": True, "preview": "none", "fail_at_step": 0}
    graph = {
        "1": {"class_type": "ProbeSlow", "inputs": {**sampled, "seed": number}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mixed"}},
    }
    return JobSpec("comfyui", payload=graph)


def by_ollama(number: int) -> JobSpec:
    chat = {"messages": [{"role": "user", "content": "count"}]}
    match number % 4:
        case 0:
            return JobSpec("ollama", payload={"model": "tiny-chat", "prompt": "count"})
        case 1:
            return JobSpec("chat_completion", payload={"model": "tiny-plain", **chat})
        case 2:
            return JobSpec("text_generation", payload={"model": "tiny-chat", "prompt": "json", "format": "json"})
    return JobSpec("embeddings", payload={"model": "tiny-embed", "input": [f"text {number}", "another"]})


def by_openai(number: int) -> JobSpec:
    match number % 4:
        case 0:
            chat = {"model": "fake", "messages": [{"role": "user", "content": "count"}]}
            return JobSpec("openai_text", payload=chat)
        case 1:
            return JobSpec("openai_image", payload={"model": "fake", "prompt": "a cat"})
        case 2:
            return JobSpec("openai_responses", payload={"model": "fake", "input": "count"})
    return JobSpec("openai_embeddings", payload={"model": "fake", "input": [f"text {number}"]})


@frozen
class Fake:
    """A fake service, and how many jobs it was given."""

    name: str
    service: FakeComfyUI | FakeOllama | FakeOpenAI
    given: Callable[[], int]


@asynccontextmanager
async def fakes() -> AsyncIterator[tuple[Fake, Fake, Fake]]:
    async def a_moment(*_: Any) -> None:
        await anyio.sleep(0.002)

    async with AsyncExitStack() as stack:
        comfyui = await stack.enter_async_context(FakeComfyUI(step_delay=0.002))
        ollama = await stack.enter_async_context(FakeOllama(pause=a_moment))
        openai = await stack.enter_async_context(FakeOpenAI(pause=a_moment))
        yield (
            Fake("comfyui", comfyui, lambda: len(comfyui.prompts)),
            Fake("ollama", ollama, lambda: len(ollama.seen)),
            Fake("openai", openai, lambda: len(openai.seen)),
        )


@asynccontextmanager
async def worker_process(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[None]:
    """`emp worker` as a process of its own, that has said that it is ready. It ends well when the block does."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    hub = {
        "HUB_REDIS_URL": settings.redis_url or "",
        "EMP_NAMESPACE": settings.namespace,
        "EMP_DATA_DIR": str(settings.data_dir),
        "HOME": str(settings.data_dir),
        "EMP_RETRY_BASE_S": "0.1",
    }
    log = settings.data_dir / "worker.log"
    command = [sys.executable, "-m", "emp_core.cli", "worker", "--json"]
    with log.open("wb") as errors:
        process = await anyio.open_process(
            command, env={**kept, **hub, **environ}, stdin=subprocess.DEVNULL, stderr=errors
        )
    async with process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(PATIENCE_S):
                assert await process.stdout.receive(), log.read_text("utf-8")
            yield
            process.send_signal(signal.SIGTERM)
            with anyio.fail_after(PATIENCE_S):
                assert await process.wait() == 0, log.read_text("utf-8")[-5000:]
        finally:
            if process.returncode is None:
                process.kill()


async def is_withdrawn(queue: JobQueue, service: str) -> bool:
    [worker] = await queue.workers()
    return worker.capabilities.services[service].withdrawn is not None


async def stop_and_start(fake: Fake, queue: JobQueue) -> None:
    """Kill a service in the middle of its jobs, wait until the worker has noticed, and bring it back."""
    with anyio.fail_after(PATIENCE_S):
        while fake.given() < KILLED_AFTER:  # noqa: ASYNC110 - three services, and only two of them tell
            await anyio.sleep(0.002)
        await fake.service.kill()
        while not await is_withdrawn(queue, fake.name):  # noqa: ASYNC110 - nobody tells of a worker's services
            await anyio.sleep(0.01)
        await fake.service.restart()


async def test_three_hundred_jobs_complete_while_each_service_is_stopped_and_started(
    queue: JobQueue, emp_settings: Settings
) -> None:
    done: list[Job] = []
    async with fakes() as (comfyui, ollama, openai):
        assert isinstance(comfyui.service, FakeComfyUI)
        assert isinstance(ollama.service, FakeOllama)
        assert isinstance(openai.service, FakeOpenAI)
        environ = {
            "WORKERS": "comfyui,ollama,openai",
            "EMP_CONCURRENCY": "comfyui=4",
            "COMFYUI_HOST": comfyui.service.host,
            "COMFYUI_PORT": str(comfyui.service.port),
            "OLLAMA_HOST": ollama.service.url,
            "OPENAI_BASE_URL": openai.service.base_url,
            "EMP_OPENAI_RESEND": "true",  # a server of one's own: nothing is paid twice
        }
        async with worker_process(emp_settings, environ):
            specs = [make(number) for number in range(100) for make in (picture, by_ollama, by_openai)]
            async with anyio.create_task_group() as group:
                for fake in (comfyui, ollama, openai):
                    group.start_soon(stop_and_start, fake, queue)
                jobs = await queue.submit_many(specs)
                done += [await queue.wait(job.id, timeout=PATIENCE_S) for job in jobs]
            [worker] = await queue.workers()
            assert {job.worker_id for job in done} == {worker.id}
            assert set(worker.capabilities.services) == {"comfyui", "ollama", "openai"}
    assert Counter(str(job.status) for job in done) == {str(JobState.COMPLETED): 300}, failures(done)
    assert any(job.attempt > 1 for job in done), "services were killed in the middle of jobs"
    assert all(job.result is not None and job.result["success"] for job in done)


def failures(jobs: list[Job]) -> list[Any]:
    """What became of those that did not complete."""
    return [(job.service_required, job.status, job.error) for job in jobs if job.status is not JobState.COMPLETED]
