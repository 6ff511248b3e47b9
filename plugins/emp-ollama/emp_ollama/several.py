"""`OllamaHostsConnector`: jobs of a queue on several Ollama servers, by one worker."""

from collections.abc import Collection, Sequence
from typing import Any

from attrs import evolve

from emp_core.config import load_settings
from emp_core.connectors.base import Connector, Health, Refusal, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.endpoints.balancers import Priority
from emp_core.endpoints.endpoint import Endpoint, EndpointState, Reading
from emp_core.endpoints.place import Place, PoolOptions
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import InvalidJob, JobFailed, MissingModel, OutOfMemory, ServiceUnavailable
from emp_core.jobs.matching import models_of_any
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_ollama.connector import OllamaConnector
from emp_ollama.hosts import HostConfig
from emp_ollama.payloads import PAYLOADS, Task
from emp_ollama.settings import OllamaSettings

__all__ = ["OllamaHostsConnector"]

_CHECK_S = 10.0


class OllamaHostsConnector(Connector):
    """Runs jobs on the servers of ``EMP_OLLAMA_HOSTS``. The worker makes one where the environment describes them.

    A job goes to a server that has its model and runs models with the sizes that it asks for: rather to one that is free than
    to one that is busy, and of those rather to one that has the model in memory.
    """

    service_type = "ollama"
    version = OllamaConnector.version
    payload_class = PAYLOADS

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.settings = load_settings(OllamaSettings, config.environ)
        self.servers = {
            one.name: OllamaConnector(config, self.settings.at(one, config.environ)) for one in self.settings.hosts
        }
        self._infos: dict[str, ServiceInfo] = {}
        self.pool = EndpointPool(
            [self._endpoint(one) for one in self.settings.hosts],
            self._ask,
            balancer=_WarmFirst(self.servers),
            options=PoolOptions(check_every_s=_CHECK_S),
        )
        self.max_concurrent_jobs = self._places()

    async def connect(self) -> None:
        """Find out which servers are there.

        Raises:
            ServiceUnavailable: none is; says why of each.
        """
        await self.pool.refresh(everyone=True)
        health = self._health()
        if not health.ok:
            raise ServiceUnavailable(health.reason or "no server is there", details=health.details)
        self.max_concurrent_jobs = self._places()

    async def watch(self) -> None:
        """Keep asking the servers how they are, and what they have."""
        await self.pool.watch()

    async def disconnect(self) -> None:
        """Close all connections."""
        for server in self.servers.values():
            await server.disconnect()

    async def check_health(self) -> Health:
        """Whether any server takes jobs."""
        await self.pool.refresh(everyone=True)
        self.max_concurrent_jobs = self._places()
        return self._health()

    async def get_service_info(self) -> ServiceInfo:
        """What all servers that take jobs have together."""
        infos = [self._infos[state.name] for state in self._able() if state.name in self._infos]
        return ServiceInfo(
            name=self.config.name,
            version=", ".join(sorted({info.version for info in infos if info.version})),
            models=models_of_any(self.servers[state.name].models.offers() for state in self._able()),
            other_models=next((info.other_models for info in infos if info.other_models), None),
            capabilities=_most([info.capabilities for info in infos]),
            details={"servers": {state.name: self._shown(state) for state in self.pool.states()}},
        )

    async def can_process_job(self, job: Job) -> Refusal | None:
        """A job that every server would have to load its model anew for, with other sizes, is for another worker."""
        task: Task = self.payload_of(job)
        if self._of_its_size(task):
            return None
        said = "; ".join(f"{name}: {one.settings.sizing.refusal(task)}" for name, one in self.servers.items())
        return Refusal(said)

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Run a task on one of the servers, on another one if that goes away before it has said anything.

        Raises:
            MissingModel: no server has the model.
            ServiceUnavailable: none that has takes jobs now.
            ConnectorError: what the connector to one server raises.
        """
        task: Task = context.payload
        model = task.model or self.settings.default_model
        if model is None:
            raise InvalidJob("the job names no model", hint="give model, or set OLLAMA_DEFAULT_MODEL on the worker")
        if not self._able():
            await self.pool.refresh(everyone=True)  # they may be back, and nobody else is left to ask
        able = await self._having(model, self._of_its_size(task))
        failed_at: set[str] = set()
        while True:
            try:
                return await self._run(job, model, context, able - failed_at)
            except (JobFailed, OutOfMemory) as error:
                # Another server may have a good copy of the model, or room for it.
                failed_at.add(error.details.get("server", ""))
                is_load = isinstance(error, OutOfMemory) or error.details.get("reason") == "server_error"
                if not is_load or context.has_put_out or not able - failed_at:
                    raise
                await context.warn(f"{error.message}; trying another server")

    async def _run(self, job: Job, model: str, context: JobContext, servers: Collection[str]) -> JobResult:
        async def work(place: Place) -> JobResult:
            context.run_at(place.name)
            result = await self.servers[place.name].process_job(job, context)
            return evolve(result, data={**result.data, "server": place.name})

        return await self.pool.run(
            work, kind=model, fit=lambda one: one.name in servers, may_move=lambda: not context.has_put_out
        )

    def _of_its_size(self, task: Task) -> set[str]:
        return {name for name, one in self.servers.items() if one.settings.sizing.refusal(task) is None}

    async def _having(self, model: str, servers: set[str]) -> set[str]:
        """Those of the servers that have a model, or all of them where models are pulled.

        Raises:
            MissingModel: none has, though they were asked again.
        """
        having = {name for name in servers if self.servers[name].models.has(model)}
        if not having:
            await self.pool.refresh(everyone=True)
            having = {name for name in servers if self.servers[name].models.has(model)}
        if self.settings.pull:
            return having & {state.name for state in self._able()} or servers
        untold = {name for name in servers if name not in self._infos}
        if having or untold:
            return having or untold
        raise MissingModel(
            f"none of the servers {', '.join(sorted(servers))} has the model {model}",
            hint=f"`ollama pull {model}` on one of them, or let workers do it with EMP_OLLAMA_PULL=true",
            details={"model": model},
        )

    async def _ask(self, endpoint: Endpoint) -> Reading:
        info = self._infos[endpoint.name] = await self.servers[endpoint.name].get_service_info()
        return Reading(details={"version": info.version})

    def _endpoint(self, host: HostConfig) -> Endpoint:
        return Endpoint(host.name, self.servers[host.name].endpoint, priority=host.priority, slots=host.slots)

    def _able(self) -> list[EndpointState]:
        return [state for state in self.pool.states() if state.reason is None]

    def _places(self) -> int:
        return max(1, sum(state.endpoint.slots for state in self._able()))

    def _health(self) -> Health:
        if self._able():
            return Health(ok=True)
        reasons = {state.name: state.reason for state in self.pool.states()}
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        return Health(False, f"no Ollama server takes jobs: {said}", {"servers": reasons})

    def _shown(self, state: EndpointState) -> dict[str, Any]:
        return {**state.as_dict(), "models": self.servers[state.name].models.details()}


class _WarmFirst(Priority):
    """Servers that are free first, of those the ones that have the model in memory; then as preferred, then by load."""

    def __init__(self, servers: dict[str, OllamaConnector]) -> None:
        super().__init__()
        self._servers = servers

    def choose(self, candidates: Sequence[EndpointState], kind: str) -> EndpointState:
        among = [one for one in candidates if not one.busy] or candidates
        warm = [one for one in among if self._servers[one.name].models.is_loaded(kind)]
        return super().choose(warm or among, kind)


def _most(capabilities: Sequence[Any]) -> dict[str, Any]:
    """The most that any has of each; None: as much as is asked for."""
    names = {name for one in capabilities for name in one}
    told = {name: [one[name] for one in capabilities if name in one] for name in names}
    return {name: None if None in values else max(values) for name, values in told.items()}
