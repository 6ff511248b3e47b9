"""celery: 8 threads, 64 jobs prefetched for each, results in Redis, no gossip, mingle or heartbeat; has no bulk submit."""

from typing import Any

from celery import Celery

from bench.peers.base import BlockingPeer, redis_url
from bench.peers.probe import ran

APP = Celery("bench", broker=redis_url(), backend=redis_url(), set_as_current=True)
APP.conf.worker_prefetch_multiplier = 64
APP.conf.broker_connection_retry_on_startup = True
APP.conf.task_default_queue = "bench"
APP.conf.worker_redirect_stdouts = False


@APP.task(name="noop")
def noop(sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Celery(BlockingPeer):
    waiters = 1  # its results arrive over one connection, which threads cannot share

    def submit(self, sent: float) -> Any:
        return noop.delay(sent)

    def submit_many(self, count: int, text: str) -> None:
        for _ in range(count):
            noop.delay(0.0, text)

    def result(self, handle: Any) -> None:
        handle.get(timeout=30)

    def recorded(self, count: int) -> bool:
        # Every result is a key of its own; beside them stand a few of the broker's.
        client = APP.backend.client
        return bool(client.dbsize() >= count and client.llen("bench") == 0 and client.hlen("unacked") == 0)

    def work(self) -> None:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
        APP.worker_main(["worker", "--pool=threads", "--concurrency=8", *quiet])


PEER = _Celery()
