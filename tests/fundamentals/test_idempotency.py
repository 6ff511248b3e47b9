"""Submitting twice what is meant once: a key of the submitter's own makes it one job."""

import pytest

from emp_core import JobQueue, JobSpec
from emp_core.errors import DuplicateJob


async def test_the_same_key_gives_the_first_job_again(queue: JobQueue):
    order = JobSpec("painter", {"subject": "a lake"}, idempotency_key="order 7")
    first = await queue.submit(order)
    again = await queue.submit(order)
    assert again.id == first.id


async def test_the_same_key_for_something_else_is_refused(queue: JobQueue):
    first = await queue.submit(JobSpec("painter", {"subject": "a lake"}, idempotency_key="order 7"))
    with pytest.raises(DuplicateJob) as refused:
        await queue.submit(JobSpec("painter", {"subject": "a hill"}, idempotency_key="order 7"))
    assert refused.value.details == {"job_id": first.id}


async def test_an_id_of_ones_own_does_the_same(queue: JobQueue):
    await queue.submit(JobSpec("painter", {"subject": "a lake"}, id="order-7"))
    again = await queue.submit(JobSpec("painter", {"subject": "a lake"}, id="order-7"))
    assert again.id == "order-7"
