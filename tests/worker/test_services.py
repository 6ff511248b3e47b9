"""A service on a worker: what its jobs tell of it holds, whatever it says of itself meanwhile."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest

from emp_core.connectors.base import Connector, Health, ServiceConfig, ServiceInfo
from emp_core.errors import RateLimited, ServiceBroken
from emp_core.jobs.matching import ModelOffer
from emp_core.jobs.model import JobSpec
from emp_core.jobs.requirements import Requirements
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import SteeredConnector, Steering, steered_binding
from emp_core.testing.workers import WorkerStarter
from emp_core.worker.services import ServiceRunner

from .waiting import until


class SlowToTell(SteeredConnector):
    """Says what it is when it is told to."""

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.asked, self.answer = anyio.Event(), anyio.Event()

    async def get_service_info(self) -> ServiceInfo:
        self.asked.set()
        await self.answer.wait()
        return await super().get_service_info()


def running_jobs(connector: Connector, run: Callable[..., Awaitable[None]]) -> ServiceRunner:
    """A service with one slot, whose jobs do what ``run`` does."""

    async def store_works() -> None:
        pass

    return ServiceRunner(
        steered_binding(Steering()),
        connector,
        1,
        check_store=store_works,
        run=run,
        refuse=lambda held: None,
        on_change=lambda: None,
        on_free=lambda: None,
    )


@pytest.mark.parametrize("failure", [ServiceBroken("no GPU"), RateLimited("slow down", retry_after_s=60)])
async def test_what_a_job_tells_of_its_service_holds_though_the_service_is_being_asked_what_it_is(failure: Exception):
    async def run(_connector: Connector, _held: Any, _scope: Any, on_end: Any) -> None:
        on_end(failure)

    connector = SlowToTell(steered_binding(Steering()).config)
    runner = running_jobs(connector, run)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        with anyio.fail_after(20):
            await connector.asked.wait()
            runner.slots.put(cast("Any", None), group)
            await anyio.wait_all_tasks_blocked()
            connector.answer.set()
            await runner.looked.wait()
        assert (runner.free, runner.offer.withdrawn) == (0, str(failure))
        group.cancel_scope.cancel()


async def test_a_service_is_disconnected_when_its_jobs_have_stopped_the_work():
    told: list[str] = []

    class Told(SteeredConnector):
        async def disconnect(self) -> None:
            told.append("disconnected")

    async def run(_connector: Connector, _held: Any, _scope: Any, _on_end: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)  # the service takes its time to stop
                told.append("stopped")

    runner = running_jobs(Told(steered_binding(Steering()).config), run)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.looked.wait()
        runner.slots.put(cast("Any", None), group)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert told == ["stopped", "disconnected"]


async def test_a_connector_that_was_cancelled_by_something_that_it_waited_for_ends_no_worker():
    class Cancelled(SteeredConnector):
        async def check_health(self) -> Health:
            asking: asyncio.Future[Health] = asyncio.get_running_loop().create_future()
            asking.cancel()
            return await asking

        async def watch(self) -> None:
            await self.check_health()

    async def run(*_given: Any) -> None:
        pass

    runner = running_jobs(Cancelled(steered_binding(Steering()).config), run)
    offered: list[str | None] = []
    async with anyio.create_task_group() as group:  # which a cancellation that gets out would end without a word
        group.start_soon(runner.run)
        with anyio.fail_after(20):
            await runner.looked.wait()
        offered.append(runner.offer.withdrawn)
        group.cancel_scope.cancel()
    assert offered == ["RuntimeError: the plugin's code was cancelled by something that it waited for"]


@pytest.mark.parametrize(
    "info",
    [
        None,
        ServiceInfo("steered", "1", models=["sdxl"]),  # type: ignore[arg-type]
        ServiceInfo("steered", "1", models={"sdxl": True}),  # type: ignore[dict-item]
        ServiceInfo("steered", "1", models={7: ModelOffer()}),  # type: ignore[dict-item]
        ServiceInfo("steered", "1", other_models=3.0),  # type: ignore[arg-type]
        ServiceInfo("steered", None),  # type: ignore[arg-type]
        ServiceInfo("steered", "1", capabilities=["x"]),  # type: ignore[arg-type]
    ],
)
async def test_a_connector_that_tells_of_its_service_in_other_types_is_warned_of_once_and_takes_jobs_all_the_same(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, caplog: pytest.LogCaptureFixture, info: Any
):
    steering.info = info
    running = await start_worker(steered_binding(steering))
    for _ in range(2):
        job = await queue.submit(JobSpec("steered"))
        (await steering.next()).complete()
        assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
        running.worker._offering.services["steered"]._look.set()
    assert sum("is left out" in record.getMessage() for record in caplog.records) == 1


async def test_a_connector_whose_health_is_of_another_type_gets_no_jobs_and_ends_no_worker(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.health = None  # type: ignore[assignment]
    await start_worker(steered_binding(steering))
    [view] = await queue.workers()
    assert view.capabilities.services["steered"].withdrawn == "TypeError: check_health gave NoneType, not Health"


async def test_a_service_on_trial_offers_one_slot_until_its_job_succeeded(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    """So explain says that it is busy, and nobody is told that a job begins at once."""
    running = await start_worker(steered_binding(steering))
    service = running.worker._offering.services["steered"]

    async def offers(slots: int) -> bool:
        [view] = await queue.workers()
        offer = view.capabilities.services["steered"]
        return offer.withdrawn is None and offer.slots == slots

    service._breaker.trip("it failed too often")
    service._breaker._open_until = 0.0
    service._on_change()
    await until(lambda: offers(1))
    job = await queue.submit(JobSpec("steered"))
    probe = await steering.next()
    waits = await queue.submit(JobSpec("steered"))
    assert "busy" in (await queue.explain(waits.id)).summary
    probe.complete()
    await queue.wait(job.id, timeout=10)
    (await steering.next()).complete()
    await queue.wait(waits.id, timeout=10)
    await until(lambda: offers(4))


async def test_a_service_that_says_what_json_cannot_hold_takes_jobs_all_the_same(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.info = ServiceInfo("steered", "1", capabilities={"score": float("nan")})
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED


async def test_a_service_whose_model_has_a_name_that_utf8_cannot_hold_takes_jobs(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    steering.info = ServiceInfo("steered", "1", models={"caf\udce9.safetensors": ModelOffer(), "b": ModelOffer()})
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", requirements=Requirements(models=("b",))))
    (await steering.next()).complete()
    assert (await queue.wait(job.id, timeout=10)).status is JobState.COMPLETED
    [worker] = await queue.workers()
    assert set(worker.capabilities.services["steered"].models or ()) == {"caf?.safetensors", "b"}


async def test_a_wait_that_a_connector_passes_on_as_a_header_had_it_ends_no_worker(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
):
    running = await start_worker(steered_binding(steering))
    told: list[Any] = ["0.1", "soon", math.inf, math.nan, -1, 10**400]
    jobs = [await queue.submit(JobSpec("steered", max_attempts=1)) for _ in told]
    for wait in told:
        (await steering.next()).fail(RateLimited("slow down", retry_after_s=wait))
    for job in jobs:
        assert (await queue.wait(job.id, timeout=20)).status is JobState.FAILED
    assert [view.id for view in await queue.workers()] == [running.id]
