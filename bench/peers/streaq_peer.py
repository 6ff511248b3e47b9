"""streaq: 100 jobs at once; enqueue_many in parts of 500."""

import asyncio
from typing import Any

from streaq import Worker

from bench.peers.base import AsyncPeer, chunks, redis_url
from bench.peers.probe import ran

WORKER: Any = Worker(redis_url=redis_url(), concurrency=100)


@WORKER.task
async def noop(sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Streaq(AsyncPeer):
    async def open(self) -> None:
        await WORKER.__aenter__()

    async def submit(self, sent: float) -> Any:
        return await noop.enqueue(sent)

    async def submit_many(self, count: int, text: str) -> None:
        for some in chunks(count, 500):
            await WORKER.enqueue_many([noop.enqueue(0.0, text) for _ in range(some)])

    async def result(self, handle: Any) -> None:
        await handle.result(30)

    async def recorded(self, count: int) -> bool:  # noqa: ARG002 - what is done leaves the queue
        return int(await WORKER.queue_size()) == 0

    def work(self) -> None:
        asyncio.run(WORKER.run_async())


PEER = _Streaq()
