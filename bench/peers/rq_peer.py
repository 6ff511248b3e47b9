"""rq: the worker that runs jobs in its own process instead of forking for each; enqueue_many in parts of 500."""

from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker

from bench.peers.base import BlockingPeer, chunks, redis_url
from bench.peers.probe import ran


def noop(sent: float, text: str = "") -> None:  # noqa: ARG001 - what a job carries
    ran(sent)


class _Rq(BlockingPeer):
    def open(self) -> None:
        self._client = Redis.from_url(redis_url())
        self._queue = Queue("bench", connection=self._client)

    def submit(self, sent: float) -> Any:
        return self._queue.enqueue(noop, sent)

    def submit_many(self, count: int, text: str) -> None:
        for some in chunks(count, 500):
            self._queue.enqueue_many([Queue.prepare_data(noop, (0.0, text)) for _ in range(some)])

    def result(self, handle: Any) -> None:
        handle.latest_result(timeout=30)

    def recorded(self, count: int) -> bool:
        return int(self._client.zcard("rq:finished:bench")) >= count

    def work(self) -> None:
        self.open()
        SimpleWorker([self._queue], connection=self._client).work(logging_level="ERROR")


PEER = _Rq()
