"""Outputs go where the job says, leave no file behind, and nobody sees the key."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from emp_comfyui.testing import FakeComfyUI
from redis.asyncio import Redis

from emp_core.config import Settings
from emp_core.jobs.codec import as_shown, dumps
from emp_core.jobs.model import Destination, Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding
from emp_core.storage.azure import AzureStore
from emp_core.testing.object_stores import BlobServer
from emp_core.testing.workers import WorkerStarter

from .rig import one_image, save, slow_image
from .test_cluster_worker import cluster_of

Brought = Callable[..., Destination]


def served_by(server: FakeComfyUI, **more: str) -> ServiceBinding:
    return cluster_of({"COMFYUI_HOST": server.host, "COMFYUI_PORT": str(server.port), **more})


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


@pytest.fixture
def container(azurite: BlobServer) -> str:
    return azurite.new_container()


@pytest.fixture
def brought(azurite: BlobServer, container: str) -> Brought:
    """Makes the ``ctx`` of a job that brings a container with its account."""
    account = {"bucket": container, "accountName": azurite.account, "accountKey": azurite.key}

    def made(**more: str) -> Destination:
        return Destination(storage={**account, "endpoint": azurite.endpoint}, **more)

    return made


@pytest.fixture
def allowed(azurite: BlobServer) -> tuple[str, ...]:
    """What workers have to allow for it: Azurite listens on this machine."""
    return (urlsplit(azurite.endpoint).netloc,)


async def everything_in(redis: Any, namespace: str) -> AsyncIterator[tuple[str, str]]:
    """All texts below a namespace, each with where it stands."""
    async for key in redis.scan_iter(match=f"{namespace}*", count=1000):
        match await redis.type(key):
            case "hash":
                for name, text in (await redis.hgetall(key)).items():
                    yield f"{key} {name}", text
            case "string":
                yield key, await redis.get(key)
            case "list":
                yield key, dumps(await redis.lrange(key, 0, -1))
            case "stream":
                yield key, dumps(await redis.xrange(key))
            case "zset":
                yield key, dumps(await redis.zrange(key, 0, -1))
            case "set":
                yield key, dumps(sorted(await redis.smembers(key)))


async def shown_of(queue: JobQueue, job: Job) -> str:
    """What people and programs get to see of a job."""
    listed = [as_shown(one) for one in await queue.jobs()]
    history = [(event.name, dict(event.data)) for event in await queue.history(job.id)]
    found = await queue.get(job.id)
    return dumps([listed, as_shown(found), history]) + f"{found!r}{await queue.explain(job.id)!r}"


async def test_an_image_job_with_a_store_of_its_own_leaves_a_blob_and_nothing_else(
    queue: JobQueue,
    start_worker: WorkerStarter,
    redis_client: Redis,
    namespace: str,
    emp_settings: Settings,
    azurite: BlobServer,
    container: str,
    brought: Brought,
    allowed: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    async with FakeComfyUI(output_dir=tmp_path / "comfyui" / "output", tells_folders=True) as server:
        hold = server.hold("ProbeSlow")
        await start_worker(served_by(server), private_hosts=allowed)
        ctx = brought(prefix="shots/010", filename="hero")
        job = await queue.submit(JobSpec("comfyui", payload=slow_image(2), ctx=ctx))
        await hold.reached()
        while_it_runs = {where async for where, text in everything_in(redis_client, namespace) if azurite.key in text}
        shown.append(await shown_of(queue, job))
        hold.release()
        done = await queue.wait(job.id, timeout=60)
        shown += [await shown_of(queue, job), repr(done)]
    assert done.status is JobState.COMPLETED
    assert done.result is not None
    [artifact] = done.result["artifacts"]
    name = f"shots/010/{job.id}/1-0-hero.png"
    assert artifact["url"] == f"{azurite.endpoint}/{container}/{name}"
    assert azurite.blobs(container) == [name]
    store = AzureStore.from_url(f"azure://{container}", azurite.environ)
    found = await store.stat(name)
    await store.aclose()
    assert (found.media_type, found.size_bytes, found.sha256) == (
        "image/png",
        artifact["size_bytes"],
        artifact["sha256"],
    )
    assert pictures(tmp_path) == [], "a file is left on this machine"
    assert not [path for path in (emp_settings.data_dir / "artifacts").rglob("*") if path.is_file()]
    assert while_it_runs == {f"{namespace}jobs:{job.id} ctx_key"}, "the worker reads it there, and nobody else needs it"
    assert not {where async for where, text in everything_in(redis_client, namespace) if azurite.key in text}
    told = capfd.readouterr()
    everything = "\n".join([*shown, caplog.text, told.out, told.err])
    assert job.id in everything
    assert azurite.key not in everything


async def test_the_result_names_the_public_address_where_there_is_one(
    queue: JobQueue, start_worker: WorkerStarter, azurite: BlobServer, brought: Brought, allowed: tuple[str, ...]
) -> None:
    ctx = brought()
    assert ctx.storage is not None
    public = Destination(storage={**ctx.storage, "cdnUrl": "https://cdn.example.com/art/"})
    async with FakeComfyUI() as server:
        await start_worker(served_by(server), private_hosts=allowed)
        job = await queue.submit(JobSpec("comfyui", payload=one_image(), ctx=public))
        done = await queue.wait(job.id, timeout=60)
    assert done.result is not None
    assert [one["url"] for one in done.result["artifacts"]] == [
        f"https://cdn.example.com/art/{job.id}/1-0-out_00001_.png"
    ]
    assert azurite.blobs(ctx.storage["bucket"]) == [f"{job.id}/1-0-out_00001_.png"]


async def test_a_wrong_key_fails_the_job_before_anything_is_run(
    queue: JobQueue, start_worker: WorkerStarter, brought: Brought, allowed: tuple[str, ...]
) -> None:
    ctx = brought()
    assert ctx.storage is not None
    wrong = Destination(storage={**ctx.storage, "accountKey": "d3Jvbmcga2V5IG9mIHNvbWVib2R5"})
    async with FakeComfyUI() as server:
        await start_worker(served_by(server), private_hosts=allowed)
        job = await queue.submit(JobSpec("comfyui", payload=one_image(), ctx=wrong))
        done = await queue.wait(job.id, timeout=60)
        assert server.prompts == []
        shown = await shown_of(queue, job)
    assert done.error is not None
    assert (done.status, done.error.code, done.attempt) == (JobState.FAILED, "invalid_job", 1)
    assert "does not accept" in done.error.message
    assert "d3Jvbmcga2V5IG9mIHNvbWVib2R5" not in shown


async def test_files_stay_on_the_server_until_all_of_them_are_stored(
    queue: JobQueue,
    start_worker: WorkerStarter,
    azurite: BlobServer,
    container: str,
    brought: Brought,
    allowed: tuple[str, ...],
    tmp_path: Path,
) -> None:
    store = AzureStore.from_url(f"azure://{container}", azurite.environ)
    await store.put("mine/1-1-second_00001_.png", b"in the way", media_type="image/png")
    await store.aclose()
    graph = {**one_image(), "4": save("1", "second")}
    async with FakeComfyUI(output_dir=tmp_path / "outputs", tells_folders=True) as server:
        await start_worker(served_by(server), private_hosts=allowed)
        job = await queue.submit(JobSpec("comfyui", payload=graph, ctx=brought(), id="mine", max_attempts=1))
        done = await queue.wait(job.id, timeout=60)
    assert done.error is not None
    assert (done.status, done.error.code) == (JobState.FAILED, "artifact_exists")
    assert pictures(tmp_path / "outputs") == ["out_00001_.png", "second_00001_.png"]


async def test_outputs_that_are_to_stay_on_the_server_do(
    queue: JobQueue, start_worker: WorkerStarter, brought: Brought, allowed: tuple[str, ...], tmp_path: Path
) -> None:
    async with FakeComfyUI(output_dir=tmp_path / "outputs", tells_folders=True) as server:
        await start_worker(served_by(server, EMP_COMFYUI_KEEP_OUTPUTS="yes"), private_hosts=allowed)
        job = await queue.submit(JobSpec("comfyui", payload=one_image(), ctx=brought()))
        assert (await queue.wait(job.id, timeout=60)).status is JobState.COMPLETED
    assert pictures(tmp_path / "outputs") == ["out_00001_.png"]


async def test_a_workflow_whose_files_were_taken_away_is_run_again(
    queue: JobQueue, start_worker: WorkerStarter, azurite: BlobServer, brought: Brought, allowed: tuple[str, ...]
) -> None:
    ctx = brought()
    async with FakeComfyUI(tells_folders=True) as server:
        await start_worker(served_by(server), private_hosts=allowed)
        for _ in range(2):
            job = await queue.submit(JobSpec("comfyui", payload=one_image(), ctx=ctx))
            assert (await queue.wait(job.id, timeout=60)).status is JobState.COMPLETED
    assert ctx.storage is not None
    assert len(azurite.blobs(ctx.storage["bucket"])) == 2


async def test_what_was_made_for_the_workers_own_store_stays_on_the_server(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with FakeComfyUI(output_dir=tmp_path / "outputs", tells_folders=True) as server:
        await start_worker(served_by(server))
        job = await queue.submit(JobSpec("comfyui", payload=one_image()))
        assert (await queue.wait(job.id, timeout=60)).status is JobState.COMPLETED
    assert pictures(tmp_path / "outputs") == ["out_00001_.png"]
