"""`ComfyUIClusterConnector`: jobs of a queue on several ComfyUI servers, by one worker."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio

from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.connector import ComfyUIWebSocketConnector
from emp_comfyui.needs import SERVERS
from emp_comfyui.workflow import Workflow
from emp_core.connectors.base import Connector, Health, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.endpoints.member import EndpointEvent
from emp_core.errors import ServiceUnavailable
from emp_core.jobs.matching import models_of_any
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult

__all__ = ["ComfyUIClusterConnector"]

_HEALTH_S = 5.0
_EVENTS_WAITING = 100
_TOLD = ("offline", "error")
"""What the jobs of a server are told that happened to it."""


class ComfyUIClusterConnector(Connector):
    """Runs workflows on the servers of ``NUKE_COMFYUI_SERVERS``. The worker makes one where the environment describes them.

    It takes as many jobs at once as there are servers that take some, times ``EMP_COMFYUI_JOBS_PER_SERVER``; and jobs that any
    of its servers can run.
    """

    service_type = "comfyui"
    version = ComfyUIWebSocketConnector.version
    payload_class = Workflow

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self._trouble: deque[EndpointEvent] = deque(maxlen=_EVENTS_WAITING)
        self._heard = anyio.Event()
        self._at_work: set[JobContext] = set()
        self.pool = ComfyUIServerPool.from_env(config.environ, on_event=self._hear)
        self.max_concurrent_jobs = self._places()

    @classmethod
    def payload_of(cls, job: Job | JobSpec) -> Workflow:
        """A job's workflow. Raises InvalidJob: it is none in API format."""
        return ComfyUIWebSocketConnector.payload_of(job)

    async def connect(self) -> None:
        """Find out which servers are there.

        Raises:
            ServiceUnavailable: none is; says why of each.
        """
        await self.pool.status(fresh=True)
        health = self._health()
        if not health.ok:
            raise ServiceUnavailable(health.reason or "no server is there", details=health.details)
        self.max_concurrent_jobs = self._places()

    async def watch(self) -> None:
        """Keep asking the servers how they are, and take up changes. Jobs are told of trouble with their servers."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.pool.watch)
            group.start_soon(self._tell_jobs)

    async def disconnect(self) -> None:
        """Close all connections."""
        await self.pool.aclose()

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Run a workflow on one of the servers, and store its outputs; see `ClusterRun`."""
        self._at_work.add(context)
        try:
            return await self.pool.process(job, context, at=self.payload_of(job).server)
        finally:
            self._at_work.discard(context)

    async def check_health(self) -> Health:
        """Whether any server takes jobs. One that hangs holds nobody up: what is known of it counts."""
        with anyio.move_on_after(_HEALTH_S):
            await self.pool.status(fresh=True)
        self.max_concurrent_jobs = self._places()
        return self._health()

    async def get_service_info(self) -> ServiceInfo:
        """What all servers that answer have together."""
        infos = await self.pool.service_infos()
        return ServiceInfo(
            name=self.config.name,
            version=", ".join(sorted({info.version for info in infos.values() if info.version})),
            models=models_of_any(info.models for info in infos.values()),
            capabilities={
                **_all_capabilities([info.capabilities for info in infos.values()]),
                SERVERS: [server.name for server in self.pool.servers if server.enabled],
            },
            details={"servers": {name: dict(info.details) for name, info in infos.items()}},
        )

    def _hear(self, event: EndpointEvent) -> None:
        if event.kind in _TOLD:
            self._trouble.append(event)
            self._heard.set()

    async def _tell_jobs(self) -> None:
        while True:
            await self._heard.wait()
            self._heard = anyio.Event()
            while self._trouble:
                event = self._trouble.popleft()
                for context in [one for one in self._at_work if one.endpoint == event.endpoint]:
                    await context.warn(f"server {event.endpoint} {event.message}")

    def _places(self) -> int:
        able = sum(server.slots for server in self.pool.able())
        return max(1, able * self.pool.settings.jobs_per_server)

    def _health(self) -> Health:
        reasons = {state.name: state.reason for state in self.pool.states()}
        if None in reasons.values():
            return Health(ok=True)
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        return Health(False, f"no ComfyUI server takes jobs: {said or 'there is none'}", {"servers": reasons})


def _all_capabilities(told: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What any has; None: one does not tell, which counts as having all."""
    together: dict[str, Any] = {}
    for name in sorted({name for capabilities in told for name in capabilities}):
        values: list[Any] = [capabilities.get(name) for capabilities in told]
        if None in values:
            together[name] = None
        else:
            lists: list[Any] = [value if isinstance(value, list | tuple) else [value] for value in values]
            together[name] = sorted({item for items in lists for item in items})
    return together
