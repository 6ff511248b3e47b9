"""Submitting many jobs of which some are wrong: the places of those are told, counted from 0."""

from collections.abc import Iterator

import pytest

from emp_core.connectors.echo import EchoConnector
from emp_core.errors import ConfigError, InvalidJob, PayloadTooLarge
from emp_core.jobs.model import JobSpec
from emp_core.plugins.preparing import Preparer
from emp_core.queue.queue import JobQueue
from emp_core.queue.synchronous import SyncJobQueue

FINE = JobSpec("echo", {"n": 1})


async def test_every_mistake_is_told_with_the_place_of_its_spec(queue: JobQueue):
    specs = [
        FINE,
        JobSpec("echo", priority=101),
        FINE,
        JobSpec("bad name", max_attempts=0),
        JobSpec("echo", {"n": {1}}),
    ]
    with pytest.raises(ConfigError) as refused:
        await queue.submit_many(specs)
    assert [problem.partition(": ")[0] for problem in refused.value.problems] == [
        "specs[1].priority",
        "specs[3].service_required",
        "specs[3].max_attempts",
        "specs[4]",
    ]
    assert refused.value.message == "specs[1]: the job cannot be submitted as it is"
    assert refused.value.details == {"spec": 1}
    assert sum((await queue.counts()).values()) == 0


async def test_the_place_is_told_of_a_generator_and_of_the_only_spec(queue: JobQueue):
    def specs() -> Iterator[JobSpec]:
        yield FINE
        yield JobSpec("echo", priority=-1)

    for given, place in ((specs(), 1), (iter([JobSpec("echo", priority=-1)]), 0)):
        with pytest.raises(ConfigError) as refused:
            await queue.submit_many(given)
        assert refused.value.details == {"spec": place}


async def test_a_spec_of_its_own_is_told_without_a_place(queue: JobQueue):
    with pytest.raises(ConfigError) as refused:
        await queue.submit(JobSpec("echo", priority=101))
    assert "specs[" not in str(refused.value)


async def test_one_that_is_too_large_is_told_with_its_place(queue: JobQueue):
    large = JobSpec("echo", {"text": "x" * queue.settings.max_payload_bytes})
    with pytest.raises(PayloadTooLarge, match=r"^specs\[2\]: the payload has ") as refused:
        await queue.submit_many([FINE, FINE, large])
    assert refused.value.details["spec"] == 2


async def test_a_payload_that_a_plugin_refuses_is_told_with_its_place(queue: JobQueue):
    preparer = Preparer.of({"echo": EchoConnector})
    async with JobQueue.connect(settings=queue.settings, prepare=preparer) as checked:
        with pytest.raises(InvalidJob) as refused:
            await checked.submit_many([FINE, JobSpec("echo", {"$echo": {"steps": "5"}}), JobSpec("echo", priority=101)])
    assert [problem.partition(": ")[0] for problem in refused.value.details["problems"]] == [
        "specs[1].payload.$echo.steps",
        "specs[2].priority",
    ]


async def test_no_more_than_a_hundred_mistakes_are_told(queue: JobQueue):
    with pytest.raises(ConfigError) as refused:
        await queue.submit_many(JobSpec("echo", priority=101) for _ in range(5000))
    assert len(refused.value.problems) == 100


def test_the_queue_without_await_tells_it_too(queue: JobQueue):
    with SyncJobQueue.connect(settings=queue.settings) as blocking, pytest.raises(ConfigError) as refused:
        blocking.submit_many(JobSpec("echo", priority=priority) for priority in (50, 101))
    assert refused.value.problems[0].startswith("specs[1].priority: ")
