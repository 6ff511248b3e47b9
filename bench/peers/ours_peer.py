"""emp-core: the worker as `emp worker` runs it, log level info, with a connector that does nothing, 256 jobs at once."""

import sys
import uuid
from typing import Any

import anyio
from attrs import evolve

from bench.peers.base import AsyncPeer, redis_url
from bench.peers.probe import ran
from emp_core.cli.serving import serve
from emp_core.config import Settings
from emp_core.connectors.base import Connector, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.states import JobState
from emp_core.plugins.hookspecs import Registration
from emp_core.plugins.loaded import Registered
from emp_core.plugins.manager import load_plugins
from emp_core.queue.consumer import Consumer
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding
from emp_core.services.schema import ServiceEntry, ServiceType
from emp_core.telemetry.logs import configure_logs
from emp_core.worker.worker import Worker

SERVICE = "noop"


class NoopConnector(Connector):
    """Does nothing with a job but take note that it ran."""

    service_type = SERVICE
    version = "1"
    max_concurrent_jobs = 256

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - there is nothing to tell
        """Take note."""
        ran(job.payload["sent"])
        return JobResult(data={})

    async def get_service_info(self) -> ServiceInfo:
        """There is no service."""
        return ServiceInfo(SERVICE, self.version)


def settings() -> Settings:
    """The defaults, but for where Redis is."""
    return evolve(Settings.from_env(), redis_url=redis_url())


def worker(name: str = "bench") -> Worker:
    """A worker for the no-op service."""
    plugins = load_plugins()
    registration = Registration("NoopConnector", f"{__name__}:NoopConnector")
    plugins = evolve(plugins, connectors={**plugins.connectors, "NoopConnector": Registered("bench", registration)})
    entry = ServiceEntry(connector="NoopConnector", type=ServiceType.EXTERNAL)
    binding = ServiceBinding(SERVICE, (SERVICE,), "NoopConnector", entry, ServiceConfig(SERVICE, {}))
    return Worker([binding], settings=settings(), plugins=plugins, worker_id=name)


class _Ours(AsyncPeer):
    _queue: JobQueue

    async def open(self) -> None:
        self._queue = await JobQueue.connect(settings=settings()).__aenter__()

    async def submit(self, sent: float) -> Any:
        return await self._queue.submit(JobSpec(service_required=SERVICE, payload={"sent": sent}))

    async def submit_many(self, count: int, text: str) -> None:
        payload = {"sent": 0.0, "text": text} if text else {"sent": 0.0}
        await self._queue.submit_many(JobSpec(service_required=SERVICE, payload=payload) for _ in range(count))

    async def result(self, handle: Any) -> None:
        await self._queue.wait(handle.id)

    async def recorded(self, count: int) -> bool:
        return bool(await self._queue.client.zcard(self._queue.keys.index(JobState.COMPLETED)) >= count)

    async def prepare(self) -> None:
        """Register a worker that never claims: a job that nobody serves is warned of, which takes three calls more."""
        consumer = Consumer(
            self._queue.client, evolve(settings(), lease_s=600.0), worker_id="stand-in@bench", session=uuid.uuid4().hex
        )
        await self.submit(0.0)
        _, lanes = await consumer.lanes()
        await consumer.set_lanes(dict.fromkeys(lanes, 0.0), [], reset=True)

    def work(self) -> None:
        configure_logs("info", "json")
        name = sys.argv[3] if len(sys.argv) > 3 else f"bench-{uuid.uuid4().hex[:8]}"

        async def run() -> None:
            await serve([worker(name)], lambda: None)

        anyio.run(run)


PEER = _Ours()
