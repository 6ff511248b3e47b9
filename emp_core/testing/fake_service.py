"""Services for tests: on a real socket, and in the test's hand."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
from aiohttp import web

from emp_core.testing.link import keep_a_port

if TYPE_CHECKING:
    import socket

__all__ = ["FakeService", "ServiceDriver"]


class ServiceDriver:
    """The suite's hand on a service: where it is, and, if ``can_hold``, what it runs.

    As it is, it stands for a service that is only known by its address. `FakeService` has everything. For a fake of another
    kind, set ``can_hold`` and give the other four.
    """

    can_hold: ClassVar[bool] = False
    """Whether the service can be told to keep its jobs, and tells what it runs."""

    begun: int = 0
    """Jobs that were ever begun."""

    def __init__(self, url: str) -> None:
        self.url = url

    def hold(self) -> None:
        """Keep jobs from now on: each begins, and does not end before `release` or before it is stopped."""
        raise NotImplementedError

    def release(self) -> None:
        """Let the jobs that are kept go on, and keep none any more."""
        raise NotImplementedError

    async def until_running(self, count: int) -> None:
        """Wait until so many jobs are there: waiting, running or kept, and neither done nor stopped."""
        raise NotImplementedError


class FakeService(ServiceDriver, ABC):
    """A service that speaks HTTP or web sockets, for tests: subclass it and answer requests with aiohttp's server.

    A block of `job` stands for the work of one job::

        class FakeShout(FakeService):
            async def answer(self, request):
                if request.path == "/health":
                    return web.Response()
                said = await request.json()
                async with self.job():
                    return web.json_response({"text": said["text"].upper()})

    An answer is cancelled when its client is gone, so that work which belongs to a connection ends with it. Work that goes
    on without is begun with `start`. Use it as an async context manager: it listens on a free port, which stays its own over
    `kill` and `restart`, and at the end everything of it is gone.
    """

    can_hold = True

    def __init__(self) -> None:
        super().__init__("")
        self.requests: list[str] = []
        """Method and path of all that was asked."""
        self.__running = 0
        self.__changed = anyio.Event()
        self.__go = anyio.Event()
        self.__go.set()
        self.__group = anyio.create_task_group()
        self.__runner: web.AppRunner | None = None
        self.__port: socket.socket | None = None

    @abstractmethod
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""

    @asynccontextmanager
    async def job(self) -> AsyncIterator[None]:
        """The work of one job: kept at its beginning while the service holds; over when the block ends, or is cancelled."""
        self.begun += 1
        self.__count(1)
        try:
            await self.__go.wait()
            yield
        finally:
            self.__count(-1)

    def start(self, work: Coroutine[Any, Any, None]) -> anyio.CancelScope:
        """Begin work that belongs to no connection; cancel what is given back to stop it."""
        scope = anyio.CancelScope()
        self.__group.start_soon(self.__work, work, scope)
        return scope

    async def kill(self) -> None:
        """End as ``kill -9`` ends a server: all connections break, and nobody listens. Work begun with `start` goes on."""
        runner, self.__runner = self.__runner, None
        if runner is None:
            return
        for connection in runner.server.connections if runner.server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def restart(self) -> None:
        """Come back, after a kill or killing now, at the same address."""
        await self.kill()
        await self.__listen()

    def hold(self) -> None:
        """Keep jobs from now on."""
        self.__go = anyio.Event()

    def release(self) -> None:
        """Let them go on."""
        self.__go.set()

    async def until_running(self, count: int) -> None:
        """Wait until so many are there."""
        while self.__running != count:
            await self.__changed.wait()

    def __count(self, change: int) -> None:
        self.__running += change
        changed, self.__changed = self.__changed, anyio.Event()
        changed.set()

    async def __work(self, work: Coroutine[Any, Any, None], scope: anyio.CancelScope) -> None:
        with scope:
            await work

    async def __answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await self.answer(request)

    async def __listen(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self.__answer)
        self.__runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
        await self.__runner.setup()
        if self.__port is None:
            self.__port = keep_a_port()
        host, port = self.__port.getsockname()
        await web.TCPSite(self.__runner, host, port, reuse_port=True).start()
        self.url = f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        await self.__group.__aenter__()
        await self.__listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.__group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.kill()
        if self.__port is not None:
            self.__port.close()
        await self.__group.__aexit__(None, None, None)
