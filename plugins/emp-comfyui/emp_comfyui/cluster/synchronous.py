"""`SyncComfyUIServerPool`: the pool for programs without an event loop of ours, such as Nuke."""

import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.cluster.results import OnProgress, RunResult
from emp_comfyui.cluster.server import ComfyUIServer
from emp_core.endpoints.endpoint import EndpointState
from emp_core.endpoints.member import EndpointEvent
from emp_core.errors import ConfigError

__all__ = ["SyncComfyUIServerPool"]

T = TypeVar("T")


class SyncComfyUIServerPool:
    """The same as `ComfyUIServerPool`, for code that is not asynchronous.

    Its event loop runs in a thread of its own: it does not touch one that the host program has. Every method does what the
    method of the same name of `ComfyUIServerPool` does, and raises the same. It may be used from several threads::

        with SyncComfyUIServerPool.from_env() as pool:
            done = pool.run(workflow, folder="/mnt/shots/sh010")

    A program with a window does not wait: it calls `start`. A host that has no place for a block calls `open` and `close`.

    Callbacks are called in the pool's thread and must return at once. What touches the host's window belongs into its own
    thread: ``nuke.executeInMainThread(update, (progress.percent,))``.
    """

    def __init__(self, make: Callable[[], ComfyUIServerPool]) -> None:
        self._make = make
        self._pool: ComfyUIServerPool | None = None
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()
        self._running: set[anyio.CancelScope] = set()
        self._ended = anyio.Event()

    @classmethod
    def of(
        cls,
        *servers: ComfyUIServer,
        environ: Mapping[str, str] | None = None,
        on_event: Callable[[EndpointEvent], None] | None = None,
    ) -> Self:
        """A pool of these servers."""
        return cls(lambda: ComfyUIServerPool(servers, environ=environ, on_event=on_event))

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, on_event: Callable[[EndpointEvent], None] | None = None
    ) -> Self:
        """The servers that the environment describes.

        Raises:
            ConfigError: on opening, when they cannot be used; lists every mistake with its place.
        """
        return cls(lambda: ComfyUIServerPool.from_env(environ, on_event=on_event))

    def open(self) -> Self:
        """Begin to look after the servers."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            pool = portal.call(self._make)
            stack.enter_context(portal.wrap_async_context_manager(pool))
            self._pool, self._portal = pool, portal
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Stop what runs, on its server, too, and let go of everything. Doing it twice is no error."""
        portal, self._portal, self._pool = self._portal, None, None
        if portal is not None:
            portal.call(self._stop_all)
            self._stack.close()

    async def _stop_all(self) -> None:
        for scope in self._running:
            scope.cancel()
        while self._running:
            self._ended = anyio.Event()
            await self._ended.wait()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- workflows -----------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: Mapping[str, Any],
        *,
        server: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> "Future[RunResult]":
        """Run a workflow and do not wait.

        ``cancel()`` of the future stops it on its server, ``add_done_callback`` tells when it ended.
        """
        pool, portal = self._opened()
        run = partial(pool.run, workflow, server=server, folder=folder, on_progress=on_progress)
        return portal.start_task_soon(self._run, run, name="emp comfyui run")

    async def _run(self, run: Callable[[], Awaitable[RunResult]]) -> RunResult:
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                return await run()
            finally:
                self._running.discard(scope)
                self._ended.set()
        raise CancelledError("the pool was closed")

    def run(
        self,
        workflow: Mapping[str, Any],
        *,
        server: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> RunResult:
        """Run a workflow and wait for what it puts out. An interruption (Ctrl-C) stops it on its server.

        Raises:
            TimeoutError: it was not done within ``timeout_s``; it was stopped on its server.
        """
        running = self.start(workflow, server=server, folder=folder, on_progress=on_progress)
        try:
            return running.result(timeout_s)
        except BaseException:
            running.cancel()
            raise

    # -- the servers ---------------------------------------------------------------------------------------------

    @property
    def servers(self) -> tuple[ComfyUIServer, ...]:
        """The servers, in order."""
        return self._call(lambda pool: pool.servers)

    def status(self, *, fresh: bool = False) -> tuple[EndpointState, ...]:
        """How the servers are."""
        pool, portal = self._opened()
        return portal.call(partial(pool.status, fresh=fresh))

    def add(self, server: ComfyUIServer) -> None:
        """Take a server in."""
        self._call(lambda pool: pool.add(server))

    def remove(self, name: str) -> None:
        """Take a server out."""
        self._call(lambda pool: pool.remove(name))

    def enable(self, name: str) -> None:
        """Give a server workflows again."""
        self._call(lambda pool: pool.enable(name))

    def disable(self, name: str) -> None:
        """Give a server no more workflows."""
        self._call(lambda pool: pool.disable(name))

    def set_priority(self, name: str, priority: int) -> None:
        """Prefer a server more (1) or less."""
        self._call(lambda pool: pool.set_priority(name, priority))

    def _call(self, call: Callable[[ComfyUIServerPool], T]) -> T:
        pool, portal = self._opened()
        return portal.call(call, pool)

    def _opened(self) -> tuple[ComfyUIServerPool, BlockingPortal]:
        if self._pool is None or self._portal is None:
            raise ConfigError(
                "the pool is not open", hint="use it as: with SyncComfyUIServerPool.from_env() as pool, or call open()"
            )
        return self._pool, self._portal
