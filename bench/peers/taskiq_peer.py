"""taskiq with taskiq-redis: streams with acknowledgement, 100 jobs at once, results polled every 5 ms instead of 200 ms;
has no bulk submit (many side by side)."""

import asyncio
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.peers.base import AsyncPeer, chunks, redis_url
from bench.peers.probe import ran

BROKER = RedisStreamBroker(redis_url()).with_result_backend(RedisAsyncResultBackend(redis_url()))
_GROUP = "taskiq"


@BROKER.task
async def noop(sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Taskiq(AsyncPeer):
    async def open(self) -> None:
        await BROKER.startup()

    async def submit(self, sent: float) -> Any:
        return await noop.kiq(sent)

    async def submit_many(self, count: int, text: str) -> None:
        for some in chunks(count, 20):
            await asyncio.gather(*(noop.kiq(0.0, text) for _ in range(some)))

    async def result(self, handle: Any) -> None:
        await handle.wait_result(check_interval=0.005, timeout=30)

    async def recorded(self, count: int) -> bool:
        from redis.asyncio import Redis

        async with Redis(connection_pool=BROKER.connection_pool) as client:
            [group] = await client.xinfo_groups(BROKER.queue_name)
            return bool(group["entries-read"] == count and group["pending"] == 0)

    def work(self) -> None:
        async def run() -> None:
            BROKER.is_worker_process = True
            await BROKER.startup()
            await run_receiver_task(BROKER, max_async_tasks=100)

        asyncio.run(run())


PEER = _Taskiq()
