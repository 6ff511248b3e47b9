"""How large what comes out of a job may be: what Redis has no room for goes to the store, and the job says where it is."""

import json
from pathlib import Path

from emp_core.jobs.model import JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter


async def test_a_result_too_large_for_redis_goes_to_the_store(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, tmp_path: Path
):
    await start_worker(steered_binding(steering), max_result_bytes=2000)
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete({"text": "ü" * 1500})
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    [artifact] = done.result["artifacts"]
    assert done.result["data"] == {"result_artifact": artifact["url"]}
    assert artifact["metadata"] == {"kind": "result"}
    [file] = (tmp_path / "artifacts").rglob("*result.json")
    assert json.loads(file.read_text("utf-8"))["data"] == {"text": "ü" * 1500}


async def test_a_result_just_small_enough_stays(queue: JobQueue, start_worker: WorkerStarter, steering: Steering):
    await start_worker(steered_binding(steering), max_result_bytes=2000)
    job = await queue.submit(JobSpec("steered"))
    frame = len('{"success":true,"data":{"text":""},"artifacts":[]}')
    (await steering.next()).complete({"text": "x" * (2000 - frame)})
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    assert done.result["artifacts"] == []


async def test_usage_too_large_for_redis_goes_to_the_store(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, tmp_path: Path
):
    usage = {"loading_ms": 7, "per_token": ["ü" * 10] * 200}
    await start_worker(steered_binding(steering), max_result_bytes=2000)
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete(result=JobResult({"n": 1}, usage=usage))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    [artifact] = done.result["artifacts"]
    assert (done.result["data"], done.usage) == ({"n": 1}, {"usage_artifact": artifact["url"]})
    assert artifact["metadata"] == {"kind": "usage"}
    [file] = (tmp_path / "artifacts").rglob("*usage.json")
    assert json.loads(file.read_text("utf-8")) == usage
    assert (await queue.history(job.id))[-1].data["loading_ms"] == 7


async def test_a_result_and_its_usage_may_both_be_too_large_for_redis(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, tmp_path: Path
):
    await start_worker(steered_binding(steering), max_result_bytes=2000)
    job = await queue.submit(JobSpec("steered"))
    (await steering.next()).complete(result=JobResult({"text": "x" * 3000}, usage={"text": "y" * 3000}))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    whole, usage = done.result["artifacts"]
    assert (done.result["data"], done.usage) == ({"result_artifact": whole["url"]}, {"usage_artifact": usage["url"]})
