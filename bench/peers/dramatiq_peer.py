"""dramatiq: 8 threads, results stored; has no bulk submit."""

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.base import BlockingPeer, redis_url
from bench.peers.probe import ran

BROKER = RedisBroker(url=redis_url())
BROKER.add_middleware(Results(backend=RedisBackend(url=redis_url())))
dramatiq.set_broker(BROKER)


@dramatiq.actor(store_results=True)
def noop(sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Dramatiq(BlockingPeer):
    def submit(self, sent: float) -> Any:
        return noop.send(sent)

    def submit_many(self, count: int, text: str) -> None:
        for _ in range(count):
            noop.send(0.0, text)

    def result(self, handle: Any) -> None:
        handle.get_result(block=True, timeout=30_000)

    def recorded(self, count: int) -> bool:  # noqa: ARG002 - what is acknowledged is deleted
        return int(BROKER.client.hlen("dramatiq:default.msgs")) == 0

    def work(self) -> None:
        worker = dramatiq.Worker(BROKER, worker_threads=8)
        worker.start()
        while True:
            time.sleep(3600)


PEER = _Dramatiq()
