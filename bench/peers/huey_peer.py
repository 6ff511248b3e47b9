"""huey: one thread, blocking reads; results are polled every 5 ms instead of up to 1 s; has no bulk submit."""

from typing import Any

from huey import RedisHuey

from bench.peers.base import BlockingPeer, redis_url
from bench.peers.probe import ran

HUEY = RedisHuey("bench", url=redis_url())


@HUEY.task()
def noop(sent: float, text: str = "") -> bool:  # noqa: ARG001 - what a job carries
    ran(sent)
    return True  # it stores no None


class _Huey(BlockingPeer):
    def submit(self, sent: float) -> Any:
        return noop(sent)

    def submit_many(self, count: int, text: str) -> None:
        for _ in range(count):
            noop(0.0, text)

    def result(self, handle: Any) -> None:
        handle.get(blocking=True, timeout=30, backoff=1.0, max_delay=0.005)

    def recorded(self, count: int) -> bool:
        return int(HUEY.storage.result_store_size()) >= count

    def work(self) -> None:
        HUEY.create_consumer(workers=1, worker_type="thread").run()


PEER = _Huey()
