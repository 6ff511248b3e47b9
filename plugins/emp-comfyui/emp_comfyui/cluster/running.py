"""One workflow on a cluster: a server is chosen, its paths are put in, and another one takes over when it goes away."""

import anyio
from attrs import frozen

from emp_comfyui.cluster.hosts import Hosts
from emp_comfyui.cluster.kinds import kind_of
from emp_comfyui.cluster.paths import PathMap
from emp_comfyui.cluster.placing import job_for, result_from
from emp_comfyui.cluster.upkeep import Upkeep
from emp_comfyui.needs import needs_of
from emp_comfyui.workflow import Workflow
from emp_core.connectors.context import JobContext
from emp_core.endpoints.place import Place
from emp_core.endpoints.pool import EndpointPool
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult

__all__ = ["ClusterRun"]


@frozen
class ClusterRun:
    """Runs one job.

    Attributes:
        at: the name of the only server that will do; None: any.
    """

    hosts: Hosts
    endpoints: EndpointPool
    upkeep: Upkeep
    job: Job
    context: JobContext
    at: str | None = None

    async def run(self) -> tuple[JobResult, PathMap]:
        """Run it to its end; also tells how paths are called at the server that ran it.

        Where an earlier attempt left a run, its server comes first.

        Raises:
            InvalidJob: the workflow is wrong.
            NotHere: the server that was chosen by hand is unknown or disabled.
            ServiceUnavailable: no server takes it now; ConnectionLost: its server went away, and it may not move again.
            MissingNode, MissingModel: no server has what it needs.
            ConnectorError: what the connector to one server raises.
        """
        workflow = Workflow.from_payload(self.job.payload)
        needs = needs_of(workflow)
        return await self.endpoints.run(
            self._run_at,
            kind=kind_of(workflow.graph),
            at=self.at,
            prefer=self.context.endpoint,
            rather=lambda endpoint: self.hosts.may_have(endpoint.name, needs),
            # Outputs that were stored are known outside: they would be there twice.
            may_move=lambda: not self.context.has_put_out,
            moved=self.context.moves,
        )

    async def _run_at(self, place: Place) -> tuple[JobResult, PathMap]:
        left_at, left = self.context.endpoint, self.context.service_job_id
        if left is not None and left_at is not None and left_at != place.name:
            # Begun there just now, or by an earlier attempt: it may still wait or run.
            self.upkeep.leave(left_at, left)
        self.context.run_at(place.name, moves=place.moved)
        await self._tell(place)
        paths = self.hosts.server(place.name).paths
        job = job_for(self.job, paths)
        self.context.payload = Workflow.from_payload(job.payload)
        try:
            async with self.hosts.connector(place.name, ready=True) as connector:
                result = await connector.process_job(job, self.context)
        except anyio.get_cancelled_exc_class():
            if self.context.service_job_id is not None and self.hosts.is_away(place.name):
                # It was not stopped as it should be: that is made up for when the server is back.
                self.upkeep.leave(place.name, self.context.service_job_id)
            raise
        place.succeeded(_took_s(result))
        return result_from(result, paths, place.name), paths

    async def _tell(self, place: Place) -> None:
        """Say where it runs, and, if it was begun before, what became of that."""
        setback = place.setback
        if setback is None:
            self.context.log.debug("a server was chosen", server=place.name)
        elif setback.lost:
            said = f"server {setback.endpoint} was lost: begun again on {place.name}"
            await self.context.progress(0.0, said)
            await self.context.warn(f"{said} ({setback.error.message})")
        else:
            self.context.log.info(
                "another server was chosen", server=place.name, instead_of=setback.endpoint, why=setback.error.message
            )


def _took_s(result: JobResult) -> float | None:
    """How long the server worked on it; None for what came out of its cache, which says nothing of the next one."""
    usage = result.usage or {}
    took_s = usage.get("execution_s")
    cached = usage.get("cached_nodes", 0) >= usage.get("nodes", 1) or usage.get("adopted", False)
    return float(took_s) if isinstance(took_s, int | float) and not cached else None
