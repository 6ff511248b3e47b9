"""saq: 20 jobs at once; has no bulk submit (many side by side, at most 20 of which it sends at once by itself)."""

import asyncio
from typing import Any

from saq import Queue, Worker

from bench.peers.base import AsyncPeer, chunks, redis_url
from bench.peers.probe import ran


async def noop(_: Any, *, sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Saq(AsyncPeer):
    _queue: Any

    async def open(self) -> None:
        self._queue = Queue.from_url(redis_url())
        await self._queue.connect()

    async def submit(self, sent: float) -> Any:
        return await self._queue.enqueue("noop", sent=sent)

    async def submit_many(self, count: int, text: str) -> None:
        for some in chunks(count, 500):
            await asyncio.gather(*(self._queue.enqueue("noop", sent=0.0, text=text) for _ in range(some)))

    async def result(self, handle: Any) -> None:
        await handle.refresh(until_complete=30)

    async def recorded(self, count: int) -> bool:  # noqa: ARG002 - what is recorded is not incomplete any more
        return await self._queue.count("incomplete") == 0

    def work(self) -> None:
        async def run() -> None:
            await Worker(Queue.from_url(redis_url()), functions=[noop], concurrency=20).start()

        asyncio.run(run())


PEER = _Saq()
