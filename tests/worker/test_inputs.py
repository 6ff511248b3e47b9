"""The files of jobs, in a worker: there while the attempt runs, and only those that the job may have."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from emp_core.config import Settings
from emp_core.connectors.context import JobContext
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
IMAGE = {"$input": {"base64": b64encode(PNG).decode(), "name": "cat.png"}}


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


async def test_a_connector_has_the_jobs_files_and_nobody_has_them_later(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, emp_settings: Settings
) -> None:
    async def answer(_: Job, context: JobContext) -> JobResult:
        found = await context.inputs(accept=("image/*",))
        same = await context.fetch_input(IMAGE)

        async def length(at: object, file: object) -> str:
            return f"{at}: {file is same}"

        return JobResult(
            {
                "images": [await file.read() == PNG for file in found.values()],
                "replaced": await context.replace_inputs(context.job.payload, length),
                "left": len(files_in(emp_settings.data_dir / "inputs")),
            }
        )

    steering.answer = answer
    await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", {"images": [IMAGE, IMAGE], "text": "a cat"}))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    assert done.result["data"] == {
        "images": [True, True],
        "replaced": {"images": ["payload.images[0]: True", "payload.images[1]: True"], "text": "a cat"},
        "left": 1,
    }
    assert files_in(emp_settings.data_dir / "inputs") == []


async def test_echo_tells_what_it_was_given(queue: JobQueue, start_worker: WorkerStarter) -> None:
    await start_worker()
    job = await queue.submit(JobSpec("echo", {"image": IMAGE, "text": "a cat"}))
    done = await queue.wait(job.id, timeout=10)
    assert done.result is not None
    told = {"name": "cat.png", "media_type": "image/png", "size_bytes": len(PNG), "sha256": sha256(PNG).hexdigest()}
    assert done.result["data"] == {"image": told, "text": "a cat"}


async def test_a_cancelled_jobs_files_are_gone(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, emp_settings: Settings
) -> None:
    worker = await start_worker(steered_binding(steering))
    job = await queue.submit(JobSpec("steered", {"image": IMAGE}))
    attempt = await steering.next()
    assert (await attempt.context.fetch_input(IMAGE)).size_bytes == len(PNG)
    await queue.cancel(job.id)
    await queue.wait(job.id, timeout=10)
    assert files_in(emp_settings.data_dir / "inputs") == []
    await worker.end()
    assert not any((emp_settings.data_dir / "inputs").iterdir())


async def test_a_file_that_may_not_be_had_fails_the_job_at_once(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    async def answer(_: Job, context: JobContext) -> JobResult:
        await context.inputs()
        return JobResult()

    steering.answer = answer
    await start_worker(steered_binding(steering))
    for said, reason in (
        ({"url": "http://169.254.169.254/latest?token=geheim"}, "private_address"),
        ({"path": "/etc/passwd"}, "path_refused"),
        ({"artifact": "../../etc/passwd"}, "artifact_not_found"),
    ):
        job = await queue.submit(JobSpec("steered", {"file": {"$input": said}}))
        done = await queue.wait(job.id, timeout=10)
        assert done.error is not None
        assert (done.status, done.attempt, done.error.code) == ("failed", 1, "input")
        assert (done.error.details["reason"], done.error.details["input"]) == (reason, "payload.file")
        assert done.error.message.startswith("payload.file: ")
        assert "geheim" not in done.error.message


async def test_an_output_is_an_input_of_jobs_of_the_same_customer_alone(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering
) -> None:
    async def answer(job: Job, context: JobContext) -> JobResult:
        if job.payload:
            return JobResult({"same": [await one.read() == PNG for one in (await context.inputs()).values()]})
        return JobResult(artifacts=(await context.save(PNG, "cat.png", "image/png"),))

    steering.answer = answer
    await start_worker(steered_binding(steering))

    async def run(customer: str | None, payload: object = None) -> Job:
        job = await queue.submit(JobSpec("steered", payload, customer_id=customer))
        return await queue.wait(job.id, timeout=10)

    made = await run("alice")
    assert made.result is not None
    refs = [{"$input": {"artifact": at}} for at in (made.result["artifacts"][0]["url"], f"{made.id}/1-0-cat.png")]
    for customer in ("alice", None):
        done = await run(customer, refs)
        assert done.result is not None
        assert done.result["data"] == {"same": [True, True]}
    for ref in refs:
        refused = await run("bob", [ref])
        assert refused.error is not None
        assert refused.error.details["reason"] == "artifact_not_found"


async def test_what_a_killed_worker_left_is_gone_when_the_next_one_starts(
    start_worker: WorkerStarter, steering: Steering, emp_settings: Settings
) -> None:
    left = emp_settings.data_dir / "inputs" / "worker-0" / "file"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    (emp_settings.data_dir / "inputs" / "worker-0.lock").write_bytes(b"")
    await start_worker(steered_binding(steering))
    assert not any((emp_settings.data_dir / "inputs").iterdir())
