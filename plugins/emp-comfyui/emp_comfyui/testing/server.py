"""The fake ComfyUI server."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
import attrs
from aiohttp import web
from anyio.abc import TaskGroup

from emp_comfyui.testing import pictures
from emp_comfyui.testing.application import build_application
from emp_comfyui.testing.execution import Interrupts, PromptRun, Tools
from emp_comfyui.testing.faults import Faults, HttpFault
from emp_comfyui.testing.folders import Folders
from emp_comfyui.testing.holds import Hold, Holds
from emp_comfyui.testing.life import Life
from emp_comfyui.testing.node_class import NodeRegistry
from emp_comfyui.testing.prompt_queue import Item, PromptQueue
from emp_comfyui.testing.records import InterruptRecord, PromptRecord, RequestRecord, UploadRecord
from emp_comfyui.testing.routes_info import cpu_device
from emp_comfyui.testing.routes_prompts import PromptRoutes
from emp_comfyui.testing.sockets import Client, SocketHub
from emp_comfyui.testing.stock_nodes import stock_nodes
from emp_comfyui.testing.versions import DEFAULT_VERSION, Capabilities, capabilities_of

if TYPE_CHECKING:
    from types import TracebackType

_CLEANUP_S = 5.0


def pretended_models() -> dict[str, list[str]]:
    """The model files that a fake server pretends to have unless told otherwise."""
    return {
        "checkpoints": ["sd_xl_base_1.0.safetensors", "v1-5-pruned-emaonly.safetensors"],
        "loras": ["pretty.safetensors"],
        "vae": ["vae-ft-mse-840000-ema-pruned.safetensors"],
        "diffusion_models": ["flux1-dev.safetensors"],
    }


@attrs.define(eq=False, kw_only=True)
class FakeComfyUI:
    """A ComfyUI server that needs no GPU, no model and no ComfyUI.

    Use it as an async context manager: on entering it listens, on leaving all its tasks and files are gone. ::

        async with FakeComfyUI() as server:
            client = MyClient(server.url)
            ...
            assert server.prompts[0].client_id == "me"

    Nodes take no time unless ``step_delay`` or ``time_scale`` say so. Everything may be changed while it runs:
    :attr:`faults`, :attr:`nodes`, :attr:`models`, :meth:`hold`, :meth:`pause_queue`, :meth:`kill`, :meth:`restart` ….

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which is kept over restarts.
        version: The ComfyUI version to behave like, such as ``0.3.12``.
        dialect: ``fork``: it gives every socket an id of its own, tells it as ``client_id``, and takes prompts over it, too.
        output_dir: Where output files go; by default a folder that is deleted at the end.
        models: Names of model files by folder.
        tells_folders: Whether ``/system_stats`` names its folders for files, as a server started with options for them does.
        tls: Serve https and wss with these certificates.
        authorization: The ``Authorization`` header that every request must have, as behind a proxy; 401 without it.
        prefix: A path in front of all routes, as behind a proxy (``/comfy``).
        replaced_nodes: Node classes that it takes though it does not have them, and those that it runs in their place.
        devices: What ``/system_stats`` says of devices.
        nodes: The node classes; add your own.
        faults: What goes wrong.
        step_delay: Seconds that each step of a node takes in addition.
        time_scale: Factor for the durations that nodes ask for (``ProbeSlow``); 1.0 is real time.
        sleep: What lets time pass; called with the seconds that a node asks for. Takes the place of the two above.
        max_upload_size: Limit of request bodies in bytes.
        output_order: The order in which the outputs of a prompt are taken. The real one differs from process to process.
    """

    host: str = "127.0.0.1"
    port: int = 0
    version: str = DEFAULT_VERSION
    dialect: Literal["stock", "fork"] = "stock"
    output_dir: Path | None = None
    models: Mapping[str, Sequence[str]] = attrs.field(factory=pretended_models)
    tells_folders: bool = False
    tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    authorization: str | None = attrs.field(default=None, repr=False)
    prefix: str = ""
    replaced_nodes: Mapping[str, str] = attrs.field(factory=dict)
    devices: Sequence[Mapping[str, Any]] = attrs.field(factory=lambda: [cpu_device()], repr=False)
    nodes: NodeRegistry = attrs.field(factory=stock_nodes, repr=False)
    faults: Faults = attrs.field(factory=Faults)
    step_delay: float = 0.0
    time_scale: float = 0.0
    sleep: Callable[[float], Awaitable[None]] | None = None
    max_upload_size: int = 100 * 1024 * 1024
    output_order: Callable[[Sequence[str]], Iterable[str]] = list

    requests: list[RequestRecord] = attrs.field(factory=list, init=False, repr=False)
    prompts: list[PromptRecord] = attrs.field(factory=list, init=False, repr=False)
    interrupts: list[InterruptRecord] = attrs.field(factory=list, init=False, repr=False)
    uploads: list[UploadRecord] = attrs.field(factory=list, init=False, repr=False)
    next_number: int = attrs.field(default=0, init=False)
    worker_dead: bool = attrs.field(default=False, init=False)
    folders: Folders = attrs.field(init=False, repr=False)
    capabilities: Capabilities = attrs.field(init=False, repr=False)
    _root: Path = attrs.field(init=False, repr=False)
    _tasks: TaskGroup = attrs.field(init=False, repr=False)
    _life: Life | None = attrs.field(default=None, init=False, repr=False)
    _past_life: Life | None = attrs.field(default=None, init=False, repr=False)
    _changed: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)
    _holds: Holds = attrs.field(factory=Holds, init=False, repr=False)
    _paused: bool = attrs.field(default=False, init=False)

    # Life and death.

    async def __aenter__(self) -> Self:
        """Make the folders, then listen."""
        self.capabilities = capabilities_of(self.version)
        self._root = Path(tempfile.mkdtemp(prefix="fake-comfyui-"))
        self.folders = Folders(self._root, self.output_dir)
        (self.folders.path("input") / "example.png").write_bytes(pictures.plasma(64, 64, "example").as_png())
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._begin_life()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Drop all connections, end all tasks, delete the files."""
        self.die()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLEANUP_S):
            await self._clean_up()
        shutil.rmtree(self._root, ignore_errors=True)
        self._tasks.cancel_scope.cancel()
        if kind is None or not issubclass(kind, Exception):
            return await self._tasks.__aexit__(kind, error, trace)
        # An error of the caller's own leaves as it is, not as a group of one.
        await self._tasks.__aexit__(None, None, None)
        return None

    async def kill(self) -> None:
        """End as ``kill -9`` ends a server: no close frames, nobody listens; queue, history and cache are gone."""
        self.die()
        await self._clean_up()

    def die(self) -> None:
        """As :meth:`kill`, at once, callable from anywhere; :meth:`restart` tidies up."""
        if self._life is None:
            return
        life, self._life = self._life, None
        self._past_life = life
        self._holds.release_all()
        life.end()
        self.note_change()

    async def _clean_up(self) -> None:
        if self._past_life is not None:
            await self._past_life.clean_up()

    async def restart(self) -> None:
        """Come back (after a kill, or killing now) on the same port, with the same output and input files."""
        await self.kill()
        self.next_number, self.worker_dead = 0, False
        self.folders.clear_temp()
        await self._begin_life()

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._life is not None

    async def dead(self) -> None:
        """Wait until the server dies."""
        if self._life is not None:
            await self._life.ended.wait()

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._alive().stop_listening()

    async def resume_listening(self) -> None:
        """Take connections again, on the same port."""
        await self._alive().listen(self.host, self.port, self.tls)

    def drop_sockets(self, client_id: str | None = None) -> int:
        """Cut web sockets (all, or one client's) without close frames; returns how many there were."""
        clients = [each for each in self._alive().hub.all_open if client_id in (None, each.sid)]
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
        return len(clients)

    async def _begin_life(self) -> None:
        life = Life(
            hub=SocketHub(
                self.capabilities,
                self.max_upload_size,
                self._may_send,
                self.note_change,
                PromptRoutes(self).take_from_socket if self.dialect == "fork" else None,
            ),
            queue=PromptQueue(self._queue_changed),
            runner=web.AppRunner(build_application(self), access_log=None, handle_signals=False, shutdown_timeout=0.1),
        )
        await life.runner.setup()
        self._life = life
        self.port = await life.listen(self.host, self.port, self.tls)
        self._tasks.start_soon(life.live, self._work)

    def _alive(self) -> Life:
        if self._life is None:
            raise RuntimeError("the fake server is dead: await server.restart() first")
        return self._life

    # What tests look at.

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}{self.prefix}"

    @property
    def hub(self) -> SocketHub:
        """The sockets of this life."""
        return self._alive().hub

    @property
    def sockets(self) -> Mapping[str, Client]:
        """The sockets the server knows, by clientId."""
        return self._alive().hub.clients

    @property
    def queue(self) -> PromptQueue:
        """The prompts that wait and run."""
        return self._alive().queue

    @property
    def history(self) -> Mapping[str, Mapping[str, Any]]:
        """History entries by prompt id."""
        return self._alive().queue.history

    @property
    def interrupts_flag(self) -> Interrupts:
        """The flag that an interrupt sets."""
        return self._alive().interrupts

    def queue_info(self) -> dict[str, Any]:
        """The data of a ``status`` frame."""
        return {"exec_info": {"queue_remaining": self._alive().queue.remaining()}}

    def requested(self, path: str, method: str | None = None) -> list[RequestRecord]:
        """The requests to a path (without ``/api``)."""
        return [each for each in self.requests if each.path == path and method in (None, each.method)]

    async def until(self, met: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait until a condition on the server's state holds; it is looked at after every change.

        Raises:
            TimeoutError: it did not hold within ``timeout`` seconds.
        """
        with anyio.fail_after(timeout):
            while not met():
                await self._changed.wait()

    # What tests make happen.

    def hold(self, node: str, at_step: float | None = None) -> Hold:
        """Stop at a node (id or class) before it runs, or before it reports ``at_step``, until the hold is released."""
        return self._holds.add(node, at_step)

    def pause_queue(self) -> None:
        """Take prompts but start none, like a server whose worker has died."""
        self._paused = True

    def resume_queue(self) -> None:
        """Start prompts again."""
        self._paused = False
        self._queue_changed(tell=False)

    def fail(self, fault: HttpFault) -> HttpFault:
        """Add a fault of a route; returns it so that its ``seen`` can be read."""
        self.faults = attrs.evolve(self.faults, http=(*self.faults.http, fault))
        return fault

    def forget_cache(self) -> None:
        """Drop the results of earlier prompts."""
        self._alive().cache.clear()

    # What the parts call.

    def lose_interrupt(self) -> bool:
        """Whether the interrupt that just came is to be lost; it is counted."""
        lost = self.faults.lost_interrupts > 0
        if lost:
            self.faults = attrs.evolve(self.faults, lost_interrupts=self.faults.lost_interrupts - 1)
        return lost

    async def pass_time(self, seconds: float) -> None:
        """Let the time of a step pass."""
        if self.sleep is not None:
            await self.sleep(seconds)
        else:
            await anyio.sleep(seconds * self.time_scale + self.step_delay)

    def note_change(self) -> None:
        """Wake those who wait for a condition."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _may_send(self, kind: str) -> bool:
        return not self.faults.silent_sockets and kind not in self.faults.drop_frames

    def _queue_changed(self, *, tell: bool = True) -> None:
        life = self._life
        if life is None:
            return
        if tell:
            life.hub.announce("status", {"status": self.queue_info()}, None)
        life.work.ring()
        self.note_change()

    async def _work(self, life: Life) -> None:
        """Run prompts one after the other, for ever, or until the queue cannot be put in order."""
        while True:
            while self._paused or not life.queue.pending:
                await life.work.wait()
            try:
                item = life.queue.take()
            except TypeError:
                self.worker_dead = True  # two prompts of one number and id: the real worker thread ends as well
                return
            await self._run(life, item)

    async def _run(self, life: Life, item: Item) -> None:
        tools = Tools(
            hub=life.hub,
            nodes=self.nodes,
            cache=life.cache,
            site=self,
            holds=self._holds,
            interrupts=life.interrupts,
            capabilities=self.capabilities,
            faults=lambda: self.faults,
            sleep=self.pass_time,
        )
        outcome = await PromptRun(tools, item).run()
        life.queue.finish(item, outcome)
        client_id = item[3].get("client_id")
        if client_id is not None:
            life.hub.announce("executing", {"node": None, "prompt_id": item[1]}, str(client_id))
        self.note_change()
