"""What the pages of this folder have in common: a queue, and a worker for a service of our own, ``painter``."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from emp_core.connectors.context import JobContext
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import RunningWorker, WorkerStarter

Paint = Callable[[Job, JobContext], Awaitable[dict[str, Any]]]
StartPainter = Callable[..., Awaitable[RunningWorker]]

A_MOMENT = timedelta(milliseconds=200)


@pytest.fixture
def start_painter(start_worker: WorkerStarter) -> StartPainter:
    """``await start_painter(paint)``: a worker whose service does what the function says."""

    async def start(paint: Paint, **settings: Any) -> RunningWorker:
        steering = Steering()

        async def answer(job: Job, context: JobContext) -> JobResult:
            return JobResult(data=await paint(job, context))

        steering.answer = answer
        return await start_worker(steered_binding(steering, "painter"), **settings)

    return start
