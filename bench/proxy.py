"""A proxy before Redis: counts the commands that pass, and can go silent as a broken network does, without a FIN or RST."""

import asyncio
import threading
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_CHUNK = 65536


class _CommandCounter:
    """Counts commands in what a client sends: arrays of bulk strings."""

    def __init__(self) -> None:
        self.count = 0
        self._buffer = b""
        self._skip = 0
        self._strings = 0

    def feed(self, data: bytes) -> None:
        """Take note of what passed."""
        self._buffer += data
        while True:
            if self._skip:
                taken = min(self._skip, len(self._buffer))
                self._buffer, self._skip = self._buffer[taken:], self._skip - taken
                if self._skip:
                    return
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            self._buffer = rest
            if self._strings:
                self._strings -= 1
                self._skip = int(line[1:]) + 2
            else:
                self.count += 1
                self._strings = int(line[1:]) if line.startswith(b"*") else 0


class Proxy:
    """Forwards to a Redis on this machine, for as long as the block, in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._counters: list[_CommandCounter] = []
        self._silent = threading.Event()
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def commands(self) -> int:
        """Commands that passed until now."""
        return sum(counter.count for counter in self._counters)

    def go_silent(self) -> None:
        """From now on nothing passes. What is connected stays connected, and so does what connects."""
        self._silent.set()

    def speak(self) -> None:
        """New connections work again. Those that fell silent stay so, as they do behind a router that forgot them."""
        self._silent.clear()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._forward(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in (ending := tuple(connections)):
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._silent.is_set():
            await self._ended.wait()
            return
        counter = _CommandCounter()
        self._counters.append(counter)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, to_writer, counter))
                group.create_task(self._pump(to_reader, writer, None))
        except* OSError:
            pass  # one side left
        finally:
            writer.close()
            to_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: _CommandCounter | None
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._silent.is_set():
                await self._ended.wait()  # what this connection said is lost, and whatever it will say
            if counter is not None:
                counter.feed(data)
            writer.write(data)
            await writer.drain()
        writer.close()
