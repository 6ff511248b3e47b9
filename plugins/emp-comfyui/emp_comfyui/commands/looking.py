"""One look at the servers: each is asked how it is, and the queue which jobs run there."""

from collections.abc import Iterable
from typing import Any

import anyio
from attrs import frozen

from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_core.config import Settings, environment
from emp_core.endpoints.endpoint import EndpointState
from emp_core.errors import EmpError
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState
from emp_core.queue.embedded import running
from emp_core.queue.queue import JobQueue

__all__ = ["Look", "look"]

_QUEUE_S = 3.0
_MOST_JOBS = 2000


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
    states: tuple[EndpointState, ...]
    jobs: dict[str, Job]

    def prompts(self, state: EndpointState) -> list[str]:
        """The ids of the prompts that run at a server."""
        return [str(prompt_id) for prompt_id in state.reading.details.get("prompts", ())]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "source": self.source,
            "changes": self.changes or None,
            "servers": [self._server(state) for state in self.states],
        }

    def _server(self, state: EndpointState) -> dict[str, Any]:
        reading = state.reading
        return {
            "name": state.name,
            "url": state.endpoint.url,
            "priority": state.endpoint.priority,
            "enabled": state.endpoint.enabled,
            "slots": state.endpoint.slots,
            "status": str(state.status),
            "reason": state.reason,
            "running": reading.running,
            "waiting": reading.pending,
            "prompts": [self._prompt(prompt_id) for prompt_id in self.prompts(state)],
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
    """Ask all servers.

    Raises:
        ConfigError: the servers cannot be read; lists every mistake with its place.
    """
    environ = environment()
    configuration = ClusterConfiguration.from_env(environ)
    pool = ComfyUIServerPool.from_env(environ)
    try:
        states = await pool.status(fresh=True)
    finally:
        await pool.aclose()
    prompts = [prompt_id for state in states for prompt_id in state.reading.details.get("prompts", ())]
    changes = str(configuration.changes.path) if configuration.changes.exist else ""
    return Look(configuration.source, changes, states, await _jobs(settings, prompts))


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
