"""`ComfyUIServerPool`: several ComfyUI servers as one. Needs no Redis and no worker.

async with ComfyUIServerPool.from_env() as pool:
    done = await pool.run(workflow, folder="/mnt/shots/sh010", on_progress=print)
    for output in done.outputs:
        print(output.path)
"""

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
from anyio.to_thread import run_sync
from attrs import evolve

from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.following import ChangesFollower
from emp_comfyui.cluster.hosts import Hosts
from emp_comfyui.cluster.results import OnProgress, RunProgress, RunResult, collect
from emp_comfyui.cluster.running import ClusterRun
from emp_comfyui.cluster.server import ComfyUIServer
from emp_comfyui.cluster.settings import ClusterSettings
from emp_comfyui.cluster.status import read_status
from emp_comfyui.cluster.upkeep import Upkeep
from emp_comfyui.settings import ComfyUISettings
from emp_core.config import Settings, environment, load_settings
from emp_core.connectors.base import ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext, Preview, ProgressSink
from emp_core.endpoints.balancers import Balancer
from emp_core.endpoints.endpoint import Endpoint, EndpointState, Reading
from emp_core.endpoints.member import EndpointEvent
from emp_core.endpoints.place import PoolOptions
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import ConfigError, EmpError
from emp_core.inputs.fetching import JobInputs
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState
from emp_core.log.logger import get_logger
from emp_core.plugins.balancers import make_balancer
from emp_core.storage.local import LocalStore

__all__ = ["ComfyUIServerPool"]

_LOOK_FOR_CHANGES_S = 2.0
_CHECK_DOWN_S = 2.0
_INFO_S = 8.0

log = get_logger("emp.comfyui.cluster")


class ComfyUIServerPool:
    """Runs workflows on servers that it chooses, and begins them again elsewhere when a server goes away.

    For one event loop; `SyncComfyUIServerPool` is for programs without one.

    Args:
        servers: with unique names.
        environ: settings that hold for all servers (``EMP_COMFYUI_POLL_S`` and others); the environment when not given.
        balancer: how servers are chosen; as ``EMP_COMFYUI_BALANCER`` says when not given.
        on_event: told of trouble with servers and of changes, besides the log. Must return at once.
        configuration: where the servers are described, to be followed while the pool is open.
    """

    def __init__(
        self,
        servers: Iterable[ComfyUIServer],
        *,
        environ: Mapping[str, str] | None = None,
        balancer: Balancer | None = None,
        on_event: Callable[[EndpointEvent], None] | None = None,
        configuration: ClusterConfiguration | None = None,
    ) -> None:
        environ = environment() if environ is None else environ
        configured = tuple(servers)
        self._environ = environ
        self.settings = load_settings(ClusterSettings, environ)
        self._hosts = Hosts(ServiceConfig("comfyui", environ))
        self._hosts.have(configured)
        waits = load_settings(ComfyUISettings, environ)
        self._upkeep = Upkeep(self._hosts, waits.cancel_s)
        self._endpoints = EndpointPool(
            [server.endpoint() for server in configured],
            self._ask,
            balancer=balancer or make_balancer(self.settings.balancer),
            options=PoolOptions(
                check_every_s=self.settings.check_s,
                check_down_every_s=min(self.settings.check_s, _CHECK_DOWN_S),
                check_timeout_s=self.settings.check_timeout_s,
                lost_after_s=waits.stall_s,
                moves=self.settings.failovers,
            ),
            on_event=on_event,
        )
        self._follower = ChangesFollower(configuration, configured, self._take_up) if configuration else None
        self._background: anyio.abc.TaskGroup | None = None

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        balancer: Balancer | None = None,
        on_event: Callable[[EndpointEvent], None] | None = None,
    ) -> Self:
        """The servers of ``NUKE_COMFYUI_SERVERS``, else of ``NUKE_COMFYUI_IP_1`` and so on, else of ``NUKE_COMFYUI_IP``, else
        the one of ``COMFYUI_HOST``; with the changes that ``emp comfyui servers`` made, now and later.

        Raises:
            ConfigError: they cannot be used; lists every mistake with its place.
        """
        environ = environment() if environ is None else environ
        configuration = ClusterConfiguration.from_env(environ)
        servers = configuration.servers()
        return cls(servers, environ=environ, balancer=balancer, on_event=on_event, configuration=configuration)

    async def __aenter__(self) -> Self:
        self._background = await anyio.create_task_group().__aenter__()
        self._background.start_soon(self.watch, name="emp comfyui servers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        background, self._background = self._background, None
        try:
            if background is not None:
                background.cancel_scope.cancel()
                await background.__aexit__(None, None, None)
        finally:
            await self.aclose()

    async def watch(self) -> None:
        """Keep asking the servers how they are, and take up changes, until cancelled. The pool's block does so by itself."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._endpoints.watch)
            group.start_soon(self._upkeep.run)
            if self._follower is not None:
                group.start_soon(self._follower.run, min(_LOOK_FOR_CHANGES_S, self.settings.check_s))

    async def aclose(self) -> None:
        """Close all connections. The pool's block does so by itself."""
        await self._hosts.aclose()

    # -- the servers ---------------------------------------------------------------------------------------------

    @property
    def servers(self) -> tuple[ComfyUIServer, ...]:
        """The servers, in order."""
        return self._hosts.servers

    def states(self) -> tuple[EndpointState, ...]:
        """How the servers are, as far as is known now. Asks nobody."""
        return self._endpoints.states()

    def able(self) -> tuple[ComfyUIServer, ...]:
        """Those that take workflows now, as far as is known."""
        able = {state.name for state in self.states() if state.reason is None}
        return tuple(server for server in self.servers if server.name in able)

    async def status(self, *, fresh: bool = False) -> tuple[EndpointState, ...]:
        """How the servers are: by answers that are a few seconds old at most, or by fresh ones."""
        return await self._endpoints.refresh(everyone=fresh)

    def add(self, server: ComfyUIServer) -> None:
        """Take a server in.

        Raises:
            ConfigError: there is one of this name or address.
        """
        taken = [one for one in self.servers if one.name == server.name or one.url == server.url]
        if taken:
            raise ConfigError(f"server {taken[0].name} at {taken[0].url} is there already")
        self._hosts.have([*self.servers, server])
        self._endpoints.add(server.endpoint())

    def remove(self, name: str) -> None:
        """Take a server out. Workflows that run there go on.

        Raises:
            ConfigError: there is none of this name.
        """
        self._hosts.server(name)
        self._endpoints.remove(name)
        self._hosts.have([one for one in self.servers if one.name != name])

    def enable(self, name: str) -> None:
        """Give a server workflows again. Raises ConfigError as `remove` does."""
        self._change(evolve(self._hosts.server(name), enabled=True))

    def disable(self, name: str) -> None:
        """Give a server no more workflows. Those that run there go on. Raises ConfigError as `remove` does."""
        self._change(evolve(self._hosts.server(name), enabled=False))

    def set_priority(self, name: str, priority: int) -> None:
        """Prefer a server more (1) or less. Raises ConfigError as `remove` does."""
        self._change(evolve(self._hosts.server(name), priority=priority))

    def _change(self, server: ComfyUIServer) -> None:
        self._hosts.have([server if one.name == server.name else one for one in self.servers])
        self._endpoints.change(server.endpoint())

    def _take_up(self, changed: list[ComfyUIServer], gone: list[str]) -> None:
        known = {server.name for server in self.servers}
        for name in known.intersection(gone):
            self.remove(name)
        for server in changed:
            if server.name in known:
                self._change(server)
                continue
            try:
                self.add(server)
            except ConfigError as error:  # the program itself has added it under another name
                log.error("a server cannot be taken in", server=server.name, error=error.message)  # noqa: TRY400 - its trace says nothing more

    async def service_infos(self) -> dict[str, ServiceInfo]:
        """What the servers that take workflows now say of themselves, by name. One that does not say it in time is left out."""
        infos: dict[str, ServiceInfo] = {}

        async def ask(name: str) -> None:
            with anyio.move_on_after(_INFO_S):
                try:
                    async with self._hosts.connector(name, ready=True) as connector:
                        infos[name] = await connector.get_service_info()
                except EmpError as error:
                    log.debug("a server does not tell about itself", server=name, error=error.message)

        async with anyio.create_task_group() as group:
            for server in self.able():
                group.start_soon(ask, server.name)
        return infos

    async def _ask(self, endpoint: Endpoint) -> Reading:
        try:
            async with self._hosts.connector(endpoint.name) as connector:
                reading = await read_status(connector.comfyui)
        except BaseException:  # also when it took too long
            self._hosts.went_away(endpoint.name)
            raise
        self._hosts.is_there(endpoint.name)
        self._upkeep.answered(endpoint.name)
        return reading

    # -- workflows -----------------------------------------------------------------------------------------------

    async def process(self, job: Job, context: JobContext, *, at: str | None = None) -> JobResult:
        """Run a job of a queue; see `ClusterRun`."""
        result, _ = await ClusterRun(self._hosts, self._endpoints, self._upkeep, job, context, at).run()
        return result

    async def run(
        self,
        workflow: Mapping[str, Any],
        *,
        server: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> RunResult:
        """Run a workflow and fetch what it puts out. Cancelling it stops the workflow on its server.

        Args:
            workflow: in API format, or an object that holds it, as a job's payload does; ``{"$input": …}`` in it is a
                file that is uploaded to the server.
            server: the name of the server that is to run it; None: the pool chooses.
            folder: where the files go; they get a number where a name is taken. None: their bytes are in the result.
            on_progress: told how far it is. Must return at once; what it raises ends the run.

        Raises:
            InvalidJob: the workflow is wrong.
            InputError, InputUnavailable: a file that it refers to cannot be had.
            NotHere: there is no such server, or it is disabled.
            ServiceUnavailable: no server takes it now, or its server went away and there is no other.
            ConnectorError: by type, what became of it.
        """
        home = None if folder is None else Path(folder)
        job = _job(workflow)
        with await run_sync(_scratch, home) as scratch:
            store = LocalStore(Path(scratch))
            async with self._inputs(job, store, Path(scratch)) as inputs:
                context = JobContext(
                    job,
                    store=store,
                    inputs=inputs,
                    report=_reporter(lambda: context.endpoint, on_progress),
                    save_checkpoint=_keep_nothing,
                )
                run = ClusterRun(self._hosts, self._endpoints, self._upkeep, job, context, server)
                result, paths = await run.run()
            return await run_sync(collect, result, paths, home)

    @asynccontextmanager
    async def _inputs(self, job: Job, store: LocalStore, scratch: Path) -> AsyncIterator[JobInputs]:
        """The files that a workflow refers to, within the same limits as a worker's."""
        settings = evolve(Settings.from_env(self._environ), data_dir=scratch / ".inputs")
        taking = InputTaking.from_settings(settings, store=store)
        inputs = taking.of(job)
        try:
            yield inputs
        finally:
            with anyio.CancelScope(shield=True):
                await inputs.aclose()
                await taking.aclose()


def _job(workflow: Mapping[str, Any]) -> Job:
    requirement = Requirement.plain("comfyui")
    return Job(
        uuid.uuid4().hex, "comfyui", "comfyui", JobState.ACTIVE, payload=workflow, attempt=1, requirement=requirement
    )


def _scratch(folder: Path | None) -> "tempfile.TemporaryDirectory[str]":
    """A folder for files on their way: on the same disk as where they go, so that moving them costs nothing."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".emp-comfyui-", dir=folder)


def _reporter(server: Callable[[], str | None], on_progress: OnProgress | None) -> ProgressSink:
    def report(percent: float, message: str | None, preview: Preview | None) -> None:
        if on_progress is not None:
            on_progress(RunProgress(percent, message, server(), preview))

    return report


async def _keep_nothing(_service_job_id: str) -> None:
    """There is no later attempt that could adopt a run."""
