"""One life of the fake server: what a process of the real one would hold, and the port it listens on."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import attrs
from aiohttp import web
from anyio.lowlevel import checkpoint

from emp_comfyui.testing.bell import Bell
from emp_comfyui.testing.execution import Interrupts
from emp_comfyui.testing.execution_cache import ExecutionCache
from emp_comfyui.testing.prompt_queue import PromptQueue
from emp_comfyui.testing.sockets import SocketHub

_STEPS_OF_A_CONNECTION = 4
"""Of the event loop, from when it is taken until its handler has it."""


@attrs.define(eq=False)
class Life:
    """A kill ends it, a restart begins another."""

    hub: SocketHub
    queue: PromptQueue
    runner: web.AppRunner
    cache: ExecutionCache = attrs.field(factory=ExecutionCache)
    interrupts: Interrupts = attrs.field(factory=Interrupts)
    work: Bell = attrs.field(factory=Bell)
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    _scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    _listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port; 0 takes a free one. Does nothing if it listens already."""
        if self._listener is not None or self.runner.server is None:
            return port
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
        except OSError:
            listening.close()
            raise
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connection, sock=listening, backlog=128, ssl=tls)
        return int(listening.getsockname()[1])

    def _connection(self) -> asyncio.BaseProtocol:
        """Takes a connection that comes in; one that was on its way when this life ended is cut."""
        if self.ended.is_set() or self.runner.server is None:
            return _Cut()
        return self.runner.server()

    def stop_listening(self) -> None:
        """Take no new connections; they are refused a moment later."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            loop = asyncio.get_running_loop()
            for listening in listener.sockets:
                loop.remove_reader(listening.fileno())
            # A server that is closed a step after it has taken a connection forgets that one, and nobody closes it.
            loop.call_soon(loop.call_soon, listener.close)

    async def live(self, work: Callable[["Life"], Coroutine[Any, Any, None]]) -> None:
        """Publish frames and run prompts until the end."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.hub.publish)
                tasks.start_soon(work, self)

    def end(self) -> None:
        """End at once: all connections are cut, all tasks are cancelled."""
        self.stop_listening()
        self._cut()
        self._scope.cancel()
        self.ended.set()

    async def clean_up(self) -> None:
        """Wait until nothing is left of it."""
        for _ in range(_STEPS_OF_A_CONNECTION):
            await checkpoint()
        self._cut()
        await self.runner.cleanup()

    def _cut(self) -> None:
        connections = [] if self.runner.server is None else list(self.runner.server.connections)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()


class _Cut(asyncio.Protocol):
    """A connection to a server that has just died."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Cut it."""
        transport.close()
