"""One look at the servers: each is asked how it is, and the queue which jobs run there."""

from collections.abc import Iterable
from typing import Any

import anyio
from attrs import evolve, frozen

from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.cluster.server import ComfyUIServer
from emp_core.config import Settings, environment
from emp_core.endpoints.endpoint import EndpointState, EndpointStatus
from emp_core.errors import EmpError
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.embedded import running
from emp_core.queue.queue import JobQueue

__all__ = ["Look", "Seen", "look"]

_QUEUE_S = 3.0
_MOST_JOBS = 2000


@frozen
class Seen:
    """One server, and what it said."""

    server: ComfyUIServer
    state: EndpointState

    @property
    def answered(self) -> bool:
        """Whether it said how it is."""
        return self.state.status is EndpointStatus.ONLINE

    @property
    def status(self) -> str:
        """``disabled``, or how it was found."""
        return str(self.state.status if self.server.enabled else EndpointStatus.DISABLED)

    @property
    def prompts(self) -> list[str]:
        """The ids of the prompts that run there."""
        return [str(prompt_id) for prompt_id in self.state.reading.details.get("prompts", ())]


@frozen
class Look:
    """What there was to see.

    Attributes:
        source: where the servers are described.
        changes: the file of changes; empty when there is none.
        jobs: jobs that run on the servers, by prompt; empty when the queue cannot be reached.
    """

    source: str
    changes: str
    servers: tuple[Seen, ...]
    jobs: dict[str, Job]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "source": self.source,
            "changes": self.changes or None,
            "servers": [self._server(seen) for seen in self.servers],
        }

    def _server(self, seen: Seen) -> dict[str, Any]:
        server, reading = seen.server, seen.state.reading
        return {
            "name": server.name,
            "url": server.url,
            "priority": server.priority,
            "enabled": server.enabled,
            "slots": server.slots,
            "status": seen.status,
            "reason": seen.state.reason,
            "running": reading.running,
            "waiting": reading.pending,
            "prompts": [self._prompt(prompt_id) for prompt_id in seen.prompts],
            "memory_free_bytes": reading.memory_free_bytes,
            "memory_total_bytes": reading.memory_total_bytes,
            "devices": reading.details.get("devices", []),
            "version": reading.details.get("version"),
        }

    def _prompt(self, prompt_id: str) -> dict[str, Any]:
        job = self.jobs.get(prompt_id)
        return {
            "prompt_id": prompt_id,
            "job_id": None if job is None else job.id,
            "progress": None if job is None else job.progress,
        }


async def look(settings: Settings) -> Look:
    """Ask all servers. Those that are disabled, too: they may have jobs still.

    Raises:
        ConfigError: the servers cannot be read; lists every mistake with its place.
    """
    environ = environment()
    configuration = ClusterConfiguration.from_env(environ)
    servers = configuration.servers()
    pool = ComfyUIServerPool([evolve(server, enabled=True) for server in servers], environ=environ)
    try:
        states = await pool.status(fresh=True)
    finally:
        await pool.aclose()
    seen = tuple(Seen(server, state) for server, state in zip(servers, states, strict=True))
    changes = str(configuration.changes.path) if configuration.changes.exist else ""
    prompts = [prompt_id for one in seen for prompt_id in one.prompts]
    return Look(configuration.source, changes, seen, await _jobs(settings, prompts))


async def _jobs(settings: Settings, prompts: Iterable[str]) -> dict[str, Job]:
    """The jobs of these prompts. The servers are shown as well where the queue is away, or is none."""
    wanted = set(prompts)
    if not wanted:
        return {}
    with anyio.move_on_after(_QUEUE_S):
        try:
            embedded = None if settings.redis_url else await running(settings.data_dir)
            url = settings.redis_url or (embedded.url if embedded else None)
            if url is None:
                return {}
            async with JobQueue.connect(url, settings=settings) as queue:
                active = await queue.jobs([JobState.ACTIVE], limit=_MOST_JOBS)
        except EmpError:
            return {}
        by_prompt = {_prompt_of(job): job for job in active}
        return {prompt_id: by_prompt[prompt_id] for prompt_id in wanted & by_prompt.keys()}
    return {}


def _prompt_of(job: Job) -> str:
    """Behind the service's own id, a checkpoint names the server."""
    return (job.service_job_id or "").partition("@")[0]
