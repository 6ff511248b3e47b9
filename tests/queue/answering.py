"""A server that answers as a test says, and links to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

from emp_core.queue.links import Links
from emp_core.queue.sending import QuickConnection, packed

PING = packed("PING")
Handler = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def links_to(handler: Handler, *, reply_s: float = 5.0, most: int = 8) -> AsyncIterator[Links]:
    """Links to a server that answers as the handler does, once it was greeted."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            try:
                greeted = 0
                while greeted < 2:  # the client tells its name and version
                    told = (await stream.receive()).count(b"SETINFO")
                    await stream.send(b"+OK\r\n" * told)
                    greeted += told
                await handler(stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's

    def make() -> QuickConnection:
        return QuickConnection(host="127.0.0.1", port=port, protocol=2)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        links = Links(make, reply_s, most)
        yield links
        links.close()
        group.cancel_scope.cancel()


async def silence(stream: SocketStream) -> None:
    """Reads, and says nothing."""
    while True:
        await stream.receive()
