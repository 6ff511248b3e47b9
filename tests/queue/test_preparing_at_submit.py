"""What happens to a payload on its way: at submit, where the plugin is installed, and at claim."""

import pytest
from attrs import evolve, frozen

from emp_core.connectors.base import Connector
from emp_core.connectors.context import JobContext
from emp_core.errors import DuplicateJob, InvalidJob, NobodyServes
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirements
from emp_core.jobs.states import JobState
from emp_core.plugins.preparing import Preparer
from emp_core.queue.queue import JobQueue
from emp_core.queue.synchronous import SyncJobQueue
from emp_core.testing.workers import WorkerStarter

WRONG = JobSpec("echo", {"$echo": {"steps": "5", "second": 1}, "api_key": "hunter2"})


@frozen
class Drawing:
    model: str


class Drawer(Connector):
    service_type = "draw"
    payload_class = Drawing
    seed = 0

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        return JobResult()

    @classmethod
    def prepare_job(cls, spec: JobSpec) -> JobSpec:
        cls.seed += 1
        made = evolve(spec, payload={**spec.payload, "model": f"{spec.payload['model']}-{cls.seed}"})
        return made.with_requirements(Requirements(models=(spec.payload["model"],)))


async def test_a_wrong_payload_is_refused_at_submit_and_nothing_is_in_the_queue(queue: JobQueue):
    with pytest.raises(InvalidJob) as caught:
        await queue.submit_many([JobSpec("echo", {"fine": 1}), WRONG])
    assert caught.value.details["problems"] == [
        "specs[1].payload.$echo.steps: expected a whole number, not a text",
        "specs[1].payload.$echo.second: unknown; known are seconds, steps, fail, fail_attempts, retry_after_s, artifact",
    ]
    assert "hunter2" not in repr(caught.value.as_dict())
    assert sum((await queue.counts()).values()) == 0


async def test_preparing_can_be_switched_off_and_the_worker_refuses_the_job(
    queue: JobQueue, start_worker: WorkerStarter
):
    await start_worker()
    async with JobQueue.connect(settings=queue.settings, prepare=False) as unprepared:
        job = await unprepared.submit(WRONG)
    done = await queue.wait(job.id, timeout=20)
    assert done.status is JobState.FAILED
    assert done.attempt == 1
    assert done.error is not None
    assert done.error.code == "invalid_job"
    assert "payload.$echo.steps: expected a whole number, not a text; payload.$echo.second" in done.error.message
    assert "hunter2" not in repr(done.error)


async def test_a_preparer_of_ones_own_adds_what_it_finds(queue: JobQueue):
    prepare = Preparer.of({"draw": Drawer})
    async with JobQueue.connect(settings=queue.settings, prepare=prepare) as own:
        given = await own.submit(JobSpec("draw", {"model": "m"}))
        assert given == await queue.get(given.id)
        assert given.requirements.models == ("m",)
        assert given.payload["model"].startswith("m-")
        with pytest.raises(InvalidJob, match=r"payload.model: it is required"):
            await own.submit(JobSpec("draw", {}))
        with pytest.raises(NobodyServes):
            await own.submit(JobSpec("draw", {"model": "m"}), strict=True)


async def test_a_repeated_submit_is_told_by_what_the_submitter_said_whatever_was_added(queue: JobQueue):
    prepare = Preparer.of({"draw": Drawer})
    async with JobQueue.connect(settings=queue.settings, prepare=prepare) as own:
        first = await own.submit(JobSpec("draw", {"model": "m"}, id="mine"))
        assert await own.submit(JobSpec("draw", {"model": "m"}, id="mine")) == first
        with pytest.raises(DuplicateJob):
            await own.submit(JobSpec("draw", {"model": "other"}, id="mine"))
    async with JobQueue.connect(settings=queue.settings, prepare=False) as elsewhere:
        assert await elsewhere.submit(JobSpec("draw", {"model": "m"}, id="mine")) == first


def test_the_synchronous_queue_does_the_same(emp_settings):
    with SyncJobQueue.connect(settings=emp_settings) as queue, pytest.raises(InvalidJob):
        queue.submit(WRONG)
    with SyncJobQueue.connect(settings=emp_settings, prepare=False) as queue:
        queue.cancel(queue.submit(WRONG).id)
