"""`ComfyUIWebSocketConnector`: jobs as prompts of a ComfyUI server."""

import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve

from emp_comfyui.checking import check
from emp_comfyui.client import ComfyUIClient
from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.durations import Durations
from emp_comfyui.errors import interrupted, node_failure
from emp_comfyui.history import HistoryEntry
from emp_comfyui.inventory import Inventory
from emp_comfyui.listener import may_drop
from emp_comfyui.needs import asked_by
from emp_comfyui.outputs import deliver
from emp_comfyui.run import Finished, PromptRun
from emp_comfyui.settings import ComfyUISettings, remote_as_local
from emp_comfyui.shared_files import SharedFolders, folders_told, is_this_machine
from emp_comfyui.uploads import Uploads, has_files, remove_left
from emp_comfyui.workflow import Workflow
from emp_core.config import load_settings
from emp_core.connectors.base import Connector, Health, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.connectors.websocket import MessageType, WebSocketConnector
from emp_core.errors import ConfigError, ConnectionLost, EmpError, JobFailed
from emp_core.jobs.model import Job, JobError, JobSpec
from emp_core.jobs.outcomes import JobResult

__all__ = ["ComfyUIRemoteConnector", "ComfyUIWebSocketConnector"]

_GREETING = ({"type": "feature_flags", "data": {"supports_preview_metadata": True}},)
_STANDSTILL_LOOKS = 3
_STANDSTILL_PAUSE_S = 0.7
_CACHE_TRIES = 2
_CACHE_PAUSE_S = 0.3
"""The server empties its cache when it next has nothing to do: a prompt that comes at once is still answered from it."""
_HISTORY_S = 600.0
_ENDED_MOST = 10_000
_WORTH_A_RUN = ("output_missing", "no_output", "interrupted")
_MESSAGES = {
    "status": MessageType.CONNECTION,
    "feature_flags": MessageType.CONNECTION,
    "client_id": MessageType.CONNECTION,
    "prompt_queued": MessageType.SUBMIT,
    "error": MessageType.ERROR,
    "execution_start": MessageType.SUBMIT,
    "execution_cached": MessageType.PROGRESS,
    "progress": MessageType.PROGRESS,
    "progress_state": MessageType.PROGRESS,
    "executed": MessageType.PROGRESS,
    "execution_success": MessageType.PROGRESS,
    "execution_error": MessageType.ERROR,
    "execution_interrupted": MessageType.ERROR,
}


class ComfyUIWebSocketConnector(WebSocketConnector):
    """Runs workflows on one ComfyUI server, 0.3.12 or newer, over its stock protocol.

    Each attempt has a web socket and a client_id of its own; several may run at a time, though the server runs one prompt
    after the other.
    """

    service_type = "comfyui"
    version = "1.0.0"
    payload_class = Workflow
    health_path = "/system_stats"
    max_concurrent_jobs = 1

    def __init__(self, config: ServiceConfig) -> None:
        self.settings = load_settings(ComfyUISettings, config.environ)
        self.access = self.settings.access
        super().__init__(config, base_url=self.access.base_url)
        if self.access.tls:
            self.verify_tls = self.access.ssl_context()
        elif self.access.has_secrets and not is_this_machine(self.access.host):
            self.log.warning("secrets go to the server unencrypted: set EMP_COMFYUI_TLS", endpoint=self.endpoint)
        self._sent_headers = self.access.sent_headers()
        self._durations = Durations()
        self._ended: deque[tuple[float, str]] = deque(maxlen=_ENDED_MOST)
        self._folders: SharedFolders | None = None
        self.comfyui = ComfyUIClient(self, stall_s=self.settings.stall_s)
        self.inventory = Inventory(self.comfyui, self.log)

    def make_headers(self) -> dict[str, str]:
        """Headers of every request, and of the web socket."""
        return {**super().make_headers(), **self._sent_headers}

    @classmethod
    def payload_of(cls, job: Job | JobSpec) -> Workflow:
        """A job's workflow.

        Raises:
            InvalidJob: it is none in API format; lists every mistake with its path.
        """
        return Workflow.from_payload(job.payload)

    @classmethod
    def prepare_job(cls, spec: JobSpec) -> JobSpec:
        """Ask for workers that have the workflow's models and custom nodes, and the server that was chosen by hand."""
        return spec.with_requirements(asked_by(cls.payload_of(spec)))

    @classmethod
    def for_service(cls, config: ServiceConfig) -> Connector:
        """One that speaks to several servers, where the environment describes a cluster."""
        if cls is ComfyUIWebSocketConnector and ClusterConfiguration.describes_several(config.environ):
            from emp_comfyui.cluster.connector import ComfyUIClusterConnector  # it is made of connectors of this class

            return ComfyUIClusterConnector(config)
        return cls(config)

    def classify_message(self, data: Any) -> MessageType:
        """What a message is about. The last one of every prompt, good or bad, is ``executing`` without a node."""
        if not isinstance(data, Mapping):
            return MessageType.UNKNOWN
        body = data.get("data")
        if data.get("type") == "executing" and isinstance(body, Mapping):
            return MessageType.COMPLETE if body.get("node") is None else MessageType.PROGRESS
        return _MESSAGES.get(str(data.get("type")), MessageType.UNKNOWN)

    async def connect(self) -> None:
        """Find out that a ComfyUI server is there.

        Raises:
            ServiceUnavailable: nothing is, or something else.
        """
        self._server_was_away()
        self._folders = self._folders_of(await self.comfyui.system_stats())
        await self.inventory.refresh()
        if (folder := await self._input_folder()) is not None:
            await remove_left(folder, self.log)

    def _server_was_away(self) -> None:
        self.comfyui.forget()
        self.inventory.forget()
        self._folders = None

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Run a workflow and store its outputs.

        Raises:
            InvalidJob, MissingNode, MissingModel: the server cannot run this workflow.
            InputError, InputUnavailable: a file that the workflow refers to cannot be had.
            JobFailed, OutOfMemory, ServiceBroken: a node failed, somebody interrupted it, or it put out nothing.
            ConnectionLost, ServiceUnavailable: the server went away, or lost the prompt.
            UnsafeName: the server names an output outside its folder.
        """
        workflow = self.payload_of(job)
        if not has_files(workflow):
            return await self._process(workflow, context, None)
        uploads = Uploads(self.comfyui, context, await self._input_folder())
        try:
            return await self._process(workflow, context, uploads)
        finally:
            await uploads.tidy()

    async def _process(self, workflow: Workflow, context: JobContext, uploads: Uploads | None) -> JobResult:
        adopted = await self._adopt(workflow, context)
        if adopted is not None:
            try:
                return await self._deliver(adopted, workflow, context)
            except JobFailed as error:
                # The earlier attempt's outputs are gone meanwhile; the workflow can still be run.
                if error.details.get("reason") not in _WORTH_A_RUN:
                    raise
        checked = await check(workflow, self.inventory, self.comfyui)
        try:
            workflow = checked.workflow if uploads is None else await uploads.upload(checked.workflow)
            result = await self._run_and_deliver(workflow, context)
        except ConnectionLost:
            self._server_was_away()
            raise
        self.inventory.note_use(checked.models)
        return result

    async def _run_and_deliver(self, workflow: Workflow, context: JobContext) -> JobResult:
        """Run it, again where the server answers from its cache with files that were deleted meanwhile."""
        for _ in range(_CACHE_TRIES):
            finished = await self._run(workflow, context)
            try:
                return await self._deliver(finished, workflow, context)
            except JobFailed as error:
                if error.details.get("reason") != "output_missing" or not finished.entry.cached:
                    raise
                context.log.info("the server's cache names files that are gone: it is emptied", error=error.message)
            await self.comfyui.free_cache()
            await anyio.sleep(_CACHE_PAUSE_S)
        return await self._deliver(await self._run(workflow, context), workflow, context)

    async def _run(self, workflow: Workflow, context: JobContext) -> Finished:
        client_id = uuid.uuid4().hex
        async with self.open_socket(
            "/ws",
            params={"clientId": client_id},
            greeting=_GREETING,
            may_drop=may_drop,
            must_open=workflow.needs_socket,
        ) as socket:
            run = PromptRun(
                self.comfyui,
                workflow,
                context,
                self.settings,
                client_id=client_id,
                socket=socket,
                durations=self._durations,
            )
            try:
                return await run.submit_and_watch()
            finally:
                self._ended.append((anyio.current_time(), run.prompt_id))

    async def _adopt(self, workflow: Workflow, context: JobContext) -> Finished | None:
        """The run that an earlier attempt began, if it goes on or went well.

        Outputs that come over a web socket went to that attempt's socket: such a run is stopped, not adopted.
        """
        prompt_id = context.service_job_id
        if prompt_id is None:
            return None
        run = PromptRun(
            self.comfyui, workflow, context, self.settings, client_id=None, socket=None, prompt_id=prompt_id
        )
        if (await self.comfyui.queue()).find(prompt_id) is not None:
            if workflow.needs_socket:
                await run.stop()
                return None
            context.log.info("an earlier attempt's prompt goes on and is waited for", prompt_id=prompt_id)
            try:
                return await run.watch()
            except ConnectionLost as error:
                # Its own worker may have stopped it just now, on losing its lease.
                if error.details.get("reason") != "prompt_lost":
                    raise
                return None
        entry = await self.comfyui.history(prompt_id)
        if entry is None or not entry.succeeded or workflow.needs_socket:
            return None
        context.log.info("an earlier attempt's prompt is done and its outputs are taken", prompt_id=prompt_id)
        return Finished(entry, adopted=True)

    async def _deliver(self, finished: Finished, workflow: Workflow, context: JobContext) -> JobResult:
        _raise_failure(finished.entry, workflow, context.job.error)
        wanted = workflow.temp_outputs
        return await deliver(
            self,
            finished,
            workflow,
            context,
            temp_outputs=self.settings.temp_outputs if wanted is None else wanted,
            max_bytes=self.settings.max_output_bytes,
            folders=await self._shared_folders(),
            keep=self.settings.keep_outputs or context.job.ctx is None or context.job.ctx.storage is None,
        )

    async def _shared_folders(self) -> SharedFolders:
        """The server's folders, where this machine may see them: as the operator says, or as a server here says itself."""
        if self._folders is None:
            try:
                self._folders = self._folders_of(await self.comfyui.system_stats())
            except EmpError:  # whatever is the matter shows when the files are asked for
                return SharedFolders()
        return self._folders

    async def _input_folder(self) -> Path | None:
        """Where uploaded files can be removed; None: nowhere, or they are to stay."""
        return None if self.settings.keep_uploads else (await self._shared_folders()).folders.get("input")

    def _folders_of(self, stats: Mapping[str, Any]) -> SharedFolders:
        told = folders_told(stats["system"].get("argv")) if is_this_machine(self.access.host) else {}
        found = {**told, **self.settings.folders}
        return SharedFolders(
            {kind: path for kind, path in found.items() if kind == "input" or self.settings.read_files}
        )

    async def tidy_history(self) -> None:
        """Remove prompts from the server's history that ended a while ago: a later attempt may look for one before.

        Raises:
            ServiceUnavailable, ConnectionLost: the server does not answer.
        """
        past = anyio.current_time() - _HISTORY_S
        old = [prompt_id for ended_at, prompt_id in self._ended if ended_at <= past]
        if old and not self.settings.keep_history:
            await self.comfyui.delete_history(old)
        while self._ended and self._ended[0][0] <= past:
            self._ended.popleft()

    async def check_health(self) -> Health:
        """Whether the server answers, and runs the prompts that it takes.

        A server whose worker thread died takes prompts and runs none. Between two prompts nothing runs for a moment, so
        several looks have to agree.
        """
        waiting = 0
        try:
            with anyio.fail_after(self.health_timeout_s):
                await self.tidy_history()
                for look in range(_STANDSTILL_LOOKS):
                    await anyio.sleep(_STANDSTILL_PAUSE_S if look else 0)
                    if await self.comfyui.queue_remaining() == 0:
                        return Health(ok=True)
                    queue = await self.comfyui.queue()
                    if queue.running or not queue.waiting:
                        return Health(ok=True)
                    waiting = len(queue.waiting)
        except EmpError as error:
            self._server_was_away()
            return Health(ok=False, reason=error.message, details=error.details)
        except TimeoutError:
            return Health(ok=False, reason=f"{self.endpoint} did not answer within {self.health_timeout_s:g} s")
        return Health(
            ok=False,
            reason=f"{self.endpoint} takes prompts and runs none: its worker thread has died; restart it",
            details={"waiting": waiting},
        )

    async def get_service_info(self) -> ServiceInfo:
        """Version, devices, the model files by their names within their folders, and the nodes of others."""
        stats = await self.comfyui.system_stats()
        system = stats["system"]
        devices = stats.get("devices")
        await self.inventory.refresh()
        return ServiceInfo(
            name=self.config.name,
            version=str(system.get("comfyui_version") or ""),
            models=self.inventory.models(),
            capabilities=self.inventory.capabilities(),
            details={
                "endpoint": self.endpoint,
                "pytorch_version": system.get("pytorch_version"),
                "devices": [_device(device) for device in devices if isinstance(device, Mapping)]
                if isinstance(devices, list)
                else [],
            },
        )


class ComfyUIRemoteConnector(ComfyUIWebSocketConnector):
    """The same for a server elsewhere, whose variables have ``REMOTE_`` in their names."""

    def __init__(self, config: ServiceConfig) -> None:
        if not config.environ.get("COMFYUI_REMOTE_HOST", "").strip():
            raise ConfigError(
                "COMFYUI_REMOTE_HOST is not set, so there is no remote ComfyUI server",
                hint="set COMFYUI_REMOTE_HOST and COMFYUI_REMOTE_PORT, or run the worker type comfyui",
            )
        super().__init__(evolve(config, environ=remote_as_local(config.environ)))


def _raise_failure(entry: HistoryEntry, workflow: Workflow, earlier: JobError | None) -> None:
    if entry.interrupted:
        raise interrupted(entry.prompt_id)
    if entry.error is not None:
        error = node_failure(entry.error, workflow, earlier)
        error.details["prompt_id"] = entry.prompt_id
        raise error


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    return {key: device.get(key) for key in ("name", "type", "index", "vram_total", "vram_free")}
