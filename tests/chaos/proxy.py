"""A TCP proxy in front of Redis that does to connections what networks do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint
from attrs import define, field

from tests.chaos.servers import HOST

_CHUNK = 65_536


@define(eq=False)
class Proxy:
    """Passes bytes on, unless told otherwise; what it is told holds for open and for new connections.

    Attributes:
        delay_s: how long every piece of data takes on its way to the client.
        silent: nothing comes through in either direction, for ever: what is sent meanwhile is lost, and no end is told.
        deaf: what Redis answers is lost, and no end is told.
    """

    target: int
    port: int = 0
    delay_s: float = 0.0
    silent: bool = False
    deaf: bool = False
    _links: set["_Link"] = field(factory=set)

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"redis://{HOST}:{self.port}"

    @property
    def links(self) -> int:
        """Connections that are open."""
        return len(self._links)

    async def cut(self) -> None:
        """Close every connection, in mid-command or not."""
        cut = tuple(self._links)
        for link in cut:
            link.scope.cancel()
        while not self._links.isdisjoint(cut):  # clients connect again meanwhile
            await checkpoint()

    async def _serve(self, client: SocketStream) -> None:
        link = _Link()
        self._links.add(link)
        try:
            async with client, await anyio.connect_tcp(HOST, self.target) as server:
                with link.scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._pump, client, server, False, link)
                        group.start_soon(self._pump, server, client, True, link)
        except (OSError, anyio.BrokenResourceError):
            return  # Redis is not there: the client is told so by the end of its connection
        finally:
            self._links.discard(link)

    async def _pump(self, source: SocketStream, sink: SocketStream, is_reply: bool, link: "_Link") -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await source.receive(_CHUNK)
                if self.silent or (self.deaf and is_reply):
                    link.broken = True  # bytes are missing from now on: nothing that follows makes sense
                if link.broken:
                    continue
                if is_reply and self.delay_s:
                    await anyio.sleep(self.delay_s)
                await sink.send(data)
        if self.silent or link.broken:
            await anyio.sleep_forever()  # no FIN, no RST
        link.scope.cancel()


@define(eq=False)
class _Link:
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    broken: bool = False


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a port of this machine."""
    made = Proxy(target)
    listener = await anyio.create_tcp_listener(local_host=HOST)
    made.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, made._serve)
        try:
            yield made
        finally:
            group.cancel_scope.cancel()
