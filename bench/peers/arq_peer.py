"""arq: 100 jobs at once; polls every 10 ms instead of 500 ms, for jobs and for results; has no bulk submit (20 side by side)."""

import asyncio
import os
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker

from bench.peers.base import AsyncPeer, chunks, redis_url
from bench.peers.probe import ran

_POLL_S = 0.01


async def noop(_: dict[Any, Any], sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Arq(AsyncPeer):
    _pool: ArqRedis

    async def open(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(redis_url()))

    async def submit(self, sent: float) -> Any:
        return await self._pool.enqueue_job("noop", sent)

    async def submit_many(self, count: int, text: str) -> None:
        for some in chunks(count, 20):
            await asyncio.gather(*(self._pool.enqueue_job("noop", 0.0, text) for _ in range(some)))

    async def result(self, handle: Any) -> None:
        await handle.result(poll_delay=_POLL_S)

    async def recorded(self, count: int) -> bool:  # noqa: ARG002 - a job leaves the queue when its result is stored
        return await self._pool.zcard("arq:queue") == 0

    def work(self) -> None:
        # Before Python 3.14 there is a loop to be had only for those who make one.
        asyncio.set_event_loop(asyncio.new_event_loop())
        poll_s = 0.5 if os.environ.get("BENCH_POLLS") == "defaults" else _POLL_S
        settings = RedisSettings.from_dsn(redis_url())
        Worker([noop], redis_settings=settings, max_jobs=100, poll_delay=poll_s).run()


PEER = _Arq()
