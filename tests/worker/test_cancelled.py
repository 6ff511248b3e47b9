"""A worker that is cancelled, as by the program that it is embedded in: once, or again while it ends."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.link import link_to
from emp_core.worker import worker as worker_module
from emp_core.worker.finisher import Finisher
from emp_core.worker.worker import Worker

from .waiting import LIMIT_S, until_event

LONG = {"$echo": {"seconds": 600, "steps": 2}}
A_MOMENT_S = 0.3


@pytest.fixture
def make_worker(emp_settings: Settings) -> Callable[..., Worker]:
    """Makes workers as an embedding program does."""
    environ = {
        "HUB_REDIS_URL": emp_settings.redis_url or "",
        "EMP_NAMESPACE": emp_settings.namespace,
        "EMP_DATA_DIR": str(emp_settings.data_dir),
        "WORKERS": "echo",
    }
    return lambda **more: Worker.from_env({**environ, **more})


@pytest.fixture
def giving_back(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once a worker gives its jobs back."""
    begun = asyncio.Event()
    real = Finisher.flushed

    async def flushed(finisher: Finisher) -> None:
        begun.set()
        await real(finisher)

    monkeypatch.setattr(Finisher, "flushed", flushed)
    return begun


async def live(worker: Worker) -> None:
    async with worker:
        await worker.run()


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for a task that was cancelled."""
    done, _ = await asyncio.wait([task], timeout=LIMIT_S)
    assert done, "it runs on"
    assert task.cancelled()


async def test_a_cancelled_worker_gives_its_jobs_back_at_once(queue: JobQueue, make_worker):
    job = await queue.submit(JobSpec("echo", LONG))
    async with make_worker() as worker, anyio.create_task_group() as group:
        await group.start(worker.run)
        await until_event(queue, job.id, "claimed")
        began_s = anyio.current_time()
        group.cancel_scope.cancel()
    assert anyio.current_time() - began_s < 4, "it waited for what nobody records any more"
    found = await queue.get(job.id)
    assert (found.status, found.attempt) == ("pending", 0)
    assert await queue.workers() == []
    await queue.cancel(job.id)


async def test_a_worker_that_is_cancelled_again_while_it_gives_its_jobs_back_gives_them_back(
    queue: JobQueue, make_worker, giving_back: asyncio.Event
):
    job = await queue.submit(JobSpec("echo", LONG))
    task = asyncio.create_task(live(make_worker()))
    await until_event(queue, job.id, "claimed")
    task.cancel()
    async with asyncio.timeout(LIMIT_S):
        await giving_back.wait()
    task.cancel()
    await ended(task)
    found = await queue.get(job.id)
    assert (found.status, found.attempt) == (JobState.PENDING, 0)
    assert await queue.workers() == []


@pytest.mark.parametrize("again", [0, 1, 3])
async def test_a_cancelled_worker_ends_while_redis_is_silent(
    queue: JobQueue, make_worker, giving_back: asyncio.Event, monkeypatch: pytest.MonkeyPatch, again: int
):
    monkeypatch.setattr(worker_module, "_FLUSH_S", A_MOMENT_S)
    async with link_to(queue.url) as (link, url):
        job = await queue.submit(JobSpec("echo", LONG))
        task = asyncio.create_task(live(make_worker(HUB_REDIS_URL=url)))
        await until_event(queue, job.id, "claimed")
        link.fall_silent()
        task.cancel()
        async with asyncio.timeout(LIMIT_S):
            await giving_back.wait()
        for _ in range(again):
            task.cancel()
            await asyncio.sleep(0)
        await ended(task)


async def test_a_worker_ends_where_a_program_cancels_every_task_that_there_is(
    queue: JobQueue, make_worker, monkeypatch: pytest.MonkeyPatch
):
    """As `asyncio.run` does in the end: those that renew and record are cancelled as well."""
    monkeypatch.setattr(worker_module, "_FLUSH_S", A_MOMENT_S)

    async def program() -> None:
        async with make_worker() as worker:
            running = asyncio.create_task(worker.run())
            async with JobQueue.connect(settings=queue.settings) as its_own:
                job = await its_own.submit(JobSpec("echo", LONG))
                await until_event(its_own, job.id, "claimed")
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await ended(running)

    await anyio.to_thread.run_sync(asyncio.run, program(), abandon_on_cancel=True)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_program_that_is_cancelled_while_it_leaves_the_block_of_a_worker_at_work_closes_it(
    queue: JobQueue, make_worker, times: int
):
    """The worker runs in a task of its own and has long to drain: from now on it has no more time."""
    running: list[asyncio.Task[None]] = []
    leaving = asyncio.Event()

    async def program() -> None:
        async with make_worker(EMP_GRACE_S="600") as worker:
            running.append(asyncio.create_task(worker.run()))
            await until_event(queue, job.id, "claimed")
            leaving.set()

    job = await queue.submit(JobSpec("echo", LONG))
    task = asyncio.create_task(program())
    async with asyncio.timeout(LIMIT_S):
        await leaving.wait()
        await anyio.wait_all_tasks_blocked()
    for _ in range(times):
        task.cancel()
        await anyio.wait_all_tasks_blocked()
    await ended(task)
    done, _ = await asyncio.wait(running, timeout=LIMIT_S)
    assert done, "it runs on"
    if times == 1:
        assert (await queue.get(job.id)).status is JobState.PENDING


# -- run where it cannot be -----------------------------------------------------------------------------------------


async def test_a_worker_that_was_not_opened_says_so_when_it_is_run(make_worker):
    with pytest.raises(ConfigError, match="is not open") as raised:
        await make_worker().run()
    assert "async with" in (raised.value.hint or "")


async def test_a_worker_that_is_run_twice_at_once_says_so_and_goes_on(queue: JobQueue, make_worker):
    async with make_worker() as worker, anyio.create_task_group() as group:
        await group.start(worker.run)
        with pytest.raises(ConfigError, match="runs already"):
            await worker.run()
        with pytest.raises(ConfigError, match="runs already"):
            await group.start(worker.run)
        job = await queue.submit(JobSpec("echo", {"n": 1}))
        assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
        worker.stop()
    assert await queue.workers() == []
