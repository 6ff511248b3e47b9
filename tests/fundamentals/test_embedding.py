"""A worker is an object: it runs inside any program that has an event loop, and leaves signals and logging alone."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from emp_core import JobQueue, JobSpec, Worker
from emp_core.queue.client import NotReady
from emp_core.queue.consumer import Consumer
from emp_core.storage.stores import Stores
from emp_core.worker import worker as worker_module


@pytest.fixture
def make_worker(queue: JobQueue) -> Callable[..., Worker]:
    """Makes workers of the queue from variables, and not from those of the process."""
    environ = {
        "WORKERS": "echo",
        "HUB_REDIS_URL": queue.settings.redis_url or "",
        "EMP_NAMESPACE": queue.settings.namespace,
        "EMP_DATA_DIR": str(queue.settings.data_dir),
    }
    return lambda **more: Worker.from_env({**environ, **more})


async def test_a_worker_runs_beside_other_tasks(queue: JobQueue, make_worker):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    # The worker around the group: it is closed when the tasks that use it have ended.
    async with make_worker() as worker, anyio.create_task_group() as ours:
        await ours.start(worker.run)
        job = await queue.submit(JobSpec("echo", {"hello": 1}))
        done = await queue.wait(job.id, timeout=10)
        assert done.result is not None
        assert done.result["data"] == {"hello": 1}
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        worker.drain()
    assert await queue.workers() == []


def test_a_worker_may_be_made_before_there_is_an_event_loop(tmp_path: Path):
    assert Worker.from_env({"WORKERS": "echo", "EMP_DATA_DIR": str(tmp_path), "MACHINE_ID": "box"}).id.endswith("@box")


async def test_a_worker_may_be_told_to_end_before_it_works(queue: JobQueue, make_worker):
    for how in ("drain", "stop"):
        worker = make_worker()
        getattr(worker, how)()
        with anyio.fail_after(20):
            async with worker:
                await worker.run()
    assert await queue.workers() == []


async def test_a_worker_that_cannot_register_yet_may_be_told_to_end(
    queue: JobQueue, make_worker, monkeypatch: pytest.MonkeyPatch
):
    asked = anyio.Event()

    async def full(_consumer: Consumer, *_names: Any) -> Any:
        asked.set()
        raise NotReady("OOM command not allowed when used memory > 'maxmemory'")

    monkeypatch.setattr(Consumer, "lanes", full)
    with anyio.fail_after(20):
        async with make_worker() as worker, anyio.create_task_group() as ours:
            ours.start_soon(worker.run)
            await asked.wait()
            worker.drain()
    assert await queue.workers() == []


async def test_a_worker_whose_block_was_left_before_it_ran_does_nothing(queue: JobQueue, make_worker):
    async with make_worker() as worker:
        pass
    with anyio.fail_after(20):
        await worker.run()
    assert await queue.workers() == []


async def test_all_of_a_worker_sees_the_variables_that_it_was_given_and_no_others(
    make_worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the program around it")
    seen: list[Mapping[str, str]] = []
    real = Stores.from_settings

    def stores(*arguments: Any, **named: Any) -> Stores:
        seen.append(named["environ"])
        return real(*arguments, **named)

    def notices(_settings: Any, _plugins: Any, environ: Mapping[str, str]) -> list[Any]:
        seen.append(environ)
        return []

    monkeypatch.setattr(Stores, "from_settings", stores)
    monkeypatch.setattr(worker_module, "notices_of", notices)
    async with make_worker(AWS_ACCESS_KEY_ID="its own"):
        assert [environ["AWS_ACCESS_KEY_ID"] for environ in seen] == ["its own", "its own"]


async def test_a_worker_that_is_cancelled_gives_its_jobs_back(queue: JobQueue, start_painter):
    begun = anyio.Event()

    async def paint(job, context):
        begun.set()
        await anyio.sleep_forever()

    painter = await start_painter(paint)
    job = await queue.submit(JobSpec("painter"))
    await begun.wait()
    painter.scope.cancel()
    await painter.until_ended()
    back = await queue.get(job.id)
    assert (back.status, back.attempt) == ("pending", 0)
