"""Several servers behind one worker: jobs of a real queue, servers that die and hang."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from emp_comfyui.cluster.connector import ComfyUIClusterConnector
from emp_comfyui.connector import ComfyUIRemoteConnector, ComfyUIWebSocketConnector
from emp_comfyui.testing.faults import Faults, HttpFault

from emp_core.config import Settings
from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ServiceUnavailable
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding, load_mapping, resolve_workers
from emp_core.storage.local import LocalStore
from emp_core.testing.steered import steered_plugins
from emp_core.testing.workers import WorkerStarter

from .clusters import fakes, until
from .rig import checkpoint_image, one_image, slow_image


def cluster_of(environ: Mapping[str, str]) -> ServiceBinding:
    """The service of a worker for ComfyUI, as ``WORKERS=comfyui`` makes it in this environment."""
    plugins = steered_plugins()
    [plan] = resolve_workers(("comfyui",), load_mapping(Settings(), plugins, environ), plugins, environ)
    [binding] = plan.services
    return evolve(binding, config=ServiceConfig("comfyui", environ))


async def stored(settings: Settings) -> Counter[str]:
    """How many files of each job are in the store."""
    store = LocalStore(settings.data_dir / "artifacts")
    keys = [found.key async for found in store.list_objects()]
    return Counter(key.split("/")[-2] for key in keys)


async def finished(queue: JobQueue, job: Job) -> Job:
    return await queue.wait(job.id, timeout=60)


async def test_one_server_dies_and_one_hangs_in_mid_run_and_all_jobs_complete_once(
    queue: JobQueue, start_worker: WorkerStarter, emp_settings: Settings, tmp_path: Path
) -> None:
    async with fakes("a", "b", "c", step_delay=0.005) as servers:
        environ = servers.environ(tmp_path, EMP_COMFYUI_JOBS_PER_SERVER="4", EMP_COMFYUI_STALL_S="1")
        await start_worker(cluster_of({**environ, "EMP_COMFYUI_POLL_S": "0.4", "EMP_COMFYUI_CHECK_S": "0.5"}))
        jobs = await queue.submit_many(
            [JobSpec("comfyui", payload=slow_image(2, seed=number), max_attempts=5) for number in range(200)]
        )
        await until(lambda: sum(servers.ran.values()) >= 60)
        before = servers.ran
        dying, hanging = servers["b"].hold("ProbeSlow"), servers["c"].hold("ProbeSlow")
        await dying.reached()
        await servers["b"].kill()
        await hanging.reached()
        servers["c"].faults = Faults(http=[HttpFault("*", "hang", times=None)], silent_sockets=True)
        done = [await finished(queue, job) for job in jobs]
        hanging.release()
        after = servers.ran
    assert Counter(job.status for job in done) == {JobState.COMPLETED: 200}
    assert max(before.values()) - min(before.values()) <= 12, "spread by least load while all were well"
    assert after["a"] > 120
    assert await stored(emp_settings) == {job.id: 1 for job in jobs}
    warned = [event for job in jobs for event in await queue.history(job.id) if event.name == "warned"]
    said = {str(event.data["message"]).partition(":")[0] for event in warned}
    assert said >= {"server b was lost", "server c was lost"}


async def test_a_job_tells_that_it_went_on_at_another_server(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        hold = servers["a"].hold("ProbeSlow", at_step=3)
        await start_worker(cluster_of(servers.environ(tmp_path)))
        job = await queue.submit(JobSpec("comfyui", payload=slow_image(4)))
        await hold.reached()
        await servers["a"].kill()
        done = await finished(queue, job)
        events = await queue.history(job.id)
    assert (done.status, done.attempt) == (JobState.COMPLETED, 1)
    assert done.result is not None
    assert done.result["data"]["server"] == "b"
    *_, warned = [str(event.data["message"]) for event in events if event.name == "warned"]
    assert warned.startswith("server a was lost: begun again on b (")


async def test_a_job_tells_that_its_server_does_not_answer_while_it_is_waited_for(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        hold = servers["a"].hold("ProbeSlow", at_step=3)
        patience = {"EMP_COMFYUI_STALL_S": "60", "EMP_COMFYUI_CHECK_TIMEOUT_S": "0.5"}
        await start_worker(cluster_of({**servers.environ(tmp_path), **patience}))
        jobs = [await queue.submit(JobSpec("comfyui", payload=slow_image(4, seed=seed))) for seed in range(2)]
        await hold.reached()
        servers["a"].faults = Faults(http=[HttpFault("/system_stats", "hang", times=None)])
        warned: dict[str, list[str]] = {}
        with anyio.fail_after(60):
            while not any(warned.values()):
                await anyio.sleep(0.05)
                for job in jobs:
                    events = await queue.history(job.id)
                    warned[job.id] = [str(event.data["message"]) for event in events if event.name == "warned"]
        servers["a"].faults = Faults()
        hold.release()
        done = [await finished(queue, job) for job in jobs]
    assert {job.result["data"]["server"]: warned[job.id] for job in done if job.result} == {
        "a": ["server a is offline: it did not answer within 0.5 s"],
        "b": [],
    }


async def test_outputs_that_were_stored_keep_a_job_from_moving(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    graph = {**one_image(), "5": {**one_image()["3"], "inputs": {"images": ["2", 0], "filename_prefix": "second"}}}
    async with fakes("a", "b") as servers:
        for name in "ab":
            servers[name].fail(HttpFault("/view", "delay", delay_s=0.0))
            servers[name].fail(HttpFault("/view", "die"))
        await start_worker(cluster_of({**servers.environ(tmp_path), "EMP_COMFYUI_READ_FILES": "no"}))
        job = await queue.submit(JobSpec("comfyui", payload=graph, max_attempts=1))
        done = await finished(queue, job)
        assert sum(servers.ran.values()) == 1
    assert done.status is JobState.FAILED
    assert done.error is not None
    assert done.error.code in ("connection_lost", "service_unavailable")


async def test_a_run_that_a_dead_worker_left_is_adopted_at_its_server(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        environ = servers.environ(tmp_path)
        hold = servers["a"].hold("ProbeSlow", at_step=2)
        first = await start_worker(cluster_of({**environ, "EMP_COMFYUI_CANCEL_S": "0"}), name="first")
        job = await queue.submit(JobSpec("comfyui", payload={"prompt": slow_image(4), "server": "a"}))
        await hold.reached()
        await until_checkpoint(queue, job.id)
        await first.end()
        await start_worker(cluster_of(environ), name="second")
        hold.release()
        done = await finished(queue, job)
        assert servers.ran == {"a": 1, "b": 0}
    assert done.status is JobState.COMPLETED
    assert done.usage is not None
    assert done.usage["adopted"] is True


async def test_a_run_that_was_left_at_a_server_that_is_away_is_stopped_when_it_is_back(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        environ = servers.environ(tmp_path)
        hold = servers["a"].hold("ProbeSlow", at_step=2)
        alone = {**environ, "EMP_COMFYUI_CANCEL_S": "0", "NUKE_COMFYUI_SERVERS": servers.described("a")}
        first = await start_worker(cluster_of(alone), name="first")
        job = await queue.submit(JobSpec("comfyui", payload=slow_image(400)))
        await hold.reached()
        await until_checkpoint(queue, job.id)
        await first.end()
        servers["a"].fail(HttpFault("*", "hang", times=None))
        await start_worker(cluster_of(environ), name="second")
        done = await finished(queue, job)
        assert servers["a"].queue.remaining() == 1
        servers["a"].faults = Faults()
        await servers["a"].until(lambda: bool(servers["a"].interrupts))
        hold.release()
        await servers["a"].until(lambda: servers["a"].queue.remaining() == 0)
    assert done.status is JobState.COMPLETED
    assert done.result is not None
    assert done.result["data"]["server"] == "b"


async def until_checkpoint(queue: JobQueue, job_id: str) -> None:
    with anyio.fail_after(60):
        while not (await queue.get(job_id)).service_job_id:  # noqa: ASYNC110 - nobody tells of checkpoints
            await anyio.sleep(0.02)


async def test_it_takes_as_many_jobs_as_there_are_servers(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b", "c") as servers:
        running = await start_worker(cluster_of(servers.environ(tmp_path, EMP_COMFYUI_JOBS_PER_SERVER="2")))
        service = running.worker._offering.services["comfyui"]
        assert service.slots.capacity == 6
        await servers["c"].kill()
        connector = service.connector
        assert isinstance(connector, ComfyUIClusterConnector)
        await until(lambda: len(connector.pool.able()) == 2)

        def has_fewer_places() -> bool:
            service._look.set()  # what it does every few seconds
            return service.slots.capacity == 4

        await until(has_fewer_places)


async def test_jobs_go_to_the_server_that_their_payload_names(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        await start_worker(cluster_of(servers.environ(tmp_path)))
        jobs = await queue.submit_many(
            [JobSpec("comfyui", payload={"prompt": one_image(number), "server": "b"}) for number in range(4)]
        )
        for job in jobs:
            assert (await finished(queue, job)).status is JobState.COMPLETED
        assert servers.ran == {"a": 0, "b": 4}
        nowhere = await queue.submit(JobSpec("comfyui", payload={"prompt": one_image(), "server": "z"}))
        explained = await queue.explain(nowhere.id)
        await queue.cancel(nowhere.id)
    assert "comfyui_servers" in str(explained.as_dict())


async def test_a_model_that_one_server_has_makes_the_worker_have_it(
    queue: JobQueue, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    async with fakes("a", "b") as servers:
        servers["b"].models = {**servers["b"].models, "checkpoints": ["rare.safetensors"]}
        running = await start_worker(cluster_of(servers.environ(tmp_path)))
        jobs = await queue.submit_many(
            [JobSpec("comfyui", payload=checkpoint_image("rare.safetensors")) for _ in range(3)]
        )
        for job in jobs:
            assert (await finished(queue, job)).status is JobState.COMPLETED
        assert servers.ran == {"a": 0, "b": 3}
        offer = running.worker.capabilities().services["comfyui"]
    assert offer.models is not None
    assert {"rare.safetensors", "sd_xl_base_1.0.safetensors"} <= set(offer.models)


async def test_without_any_server_the_service_is_withdrawn_and_says_why(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers:
        connector = ComfyUIClusterConnector(ServiceConfig("comfyui", servers.environ(tmp_path)))
        connector.pool.disable("b")
        await connector.connect()
        assert (await connector.check_health()).ok
        await servers["a"].kill()
        with pytest.raises(ServiceUnavailable, match=r"no ComfyUI server takes jobs: a: .*; b: it is disabled"):
            await connector.connect()
        health = await connector.check_health()
        await connector.disconnect()
    assert not health.ok


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, ComfyUIWebSocketConnector),
        ({"NUKE_COMFYUI_IP": "127.0.0.1"}, ComfyUIClusterConnector),
        ({"NUKE_COMFYUI_IP_1": "127.0.0.1"}, ComfyUIClusterConnector),
        ({"NUKE_COMFYUI_SERVERS": '[{"ip": "127.0.0.1"}]'}, ComfyUIClusterConnector),
    ],
    ids=str,
)
def test_the_environment_decides_whether_a_worker_speaks_to_a_cluster(
    tmp_path: Path, variables: dict[str, str], kind: type
) -> None:
    environ = {"EMP_COMFYUI_SERVERS_FILE": str(tmp_path / "none.json"), "COMFYUI_REMOTE_HOST": "127.0.0.1", **variables}
    assert type(ComfyUIWebSocketConnector.for_service(ServiceConfig("comfyui", environ))) is kind
    remote = ComfyUIRemoteConnector.for_service(ServiceConfig("comfyui-remote", environ))
    assert type(remote) is ComfyUIRemoteConnector
