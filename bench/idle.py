"""What idle workers cost: commands a second in Redis, memory and CPU of their processes."""

import time
from contextlib import ExitStack

from bench.environments import Peer
from bench.programs import WorkerProcess, usage_of
from bench.proxy import Proxy
from bench.rounds import Figures, Size
from bench.servers import Server

__all__ = ["idle"]

_WORKERS = 10
_SETTLE_S = 6.0


def idle(peer: Peer, server: Server, size: Size) -> Figures:
    """Ten worker processes and no jobs; what polls does so as often as it does by default.

    Commands are counted on the wire: Redis's own counters count what scripts call, too.
    """
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.port))
        workers = [stack.enter_context(WorkerProcess(peer, proxy.url, BENCH_POLLS="defaults")) for _ in range(_WORKERS)]
        time.sleep(_SETTLE_S)
        before = [usage_of(worker.pid) for worker in workers]
        sent, began = proxy.commands, time.monotonic()
        time.sleep(size.of(20, 10))
        passed = time.monotonic() - began
        after = [usage_of(worker.pid) for worker in workers]
        sent = proxy.commands - sent
    cpu_s = sum(now.cpu_s - then.cpu_s for now, then in zip(after, before, strict=True))
    return {
        "idle commands /s": sent / passed,
        "idle RSS MB": max(one.rss_mb for one in after),
        "idle CPU %": 100 * cpu_s / passed / _WORKERS,
    }
