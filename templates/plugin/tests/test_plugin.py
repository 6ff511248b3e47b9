"""The plugin is found, and a worker runs jobs with it."""

import pytest
from emp_core import InvalidJob, JobQueue, JobSpec
from emp_core.testing.workers import WorkerStarter, bindings_of
from fake_shout import KEY, FakeShout


async def test_a_worker_runs_a_job(
    queue: JobQueue, start_worker: WorkerStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeShout() as service:
        monkeypatch.setenv("SHOUT_URL", service.url)
        monkeypatch.setenv("SHOUT_API_KEY", KEY)
        await start_worker(*bindings_of("shout"))
        job = await queue.submit(JobSpec("shout", {"text": "hello", "times": 2}))
        done = await queue.wait(job.id, timeout=30)
    assert done.error is None
    assert done.result is not None
    assert done.result["data"] == {"text": "HELLO HELLO"}
    [artifact] = done.result["artifacts"]
    assert artifact["name"] == "answer.txt"


async def test_a_wrong_payload_is_refused_at_submit(queue: JobQueue) -> None:
    with pytest.raises(InvalidJob) as caught:
        await queue.submit(JobSpec("shout", {"text": 7}))
    assert caught.value.details["problems"] == ["payload.text: expected a text, not a number"]
