"""How many jobs a second: submitted one by one, submitted together, and worked off by one worker process."""

from bench.environments import Peer
from bench.programs import Client, WorkerProcess, usage_of
from bench.rounds import Figures, Size
from bench.servers import Server

__all__ = ["drain", "submit"]

_FAST = ("ours", "bullmq")
"""They need more jobs to keep them busy for long enough to measure."""


def submit(peer: Peer, server: Server, size: Size) -> Figures:
    """One client, one call after the other; then in bulk. Nobody works meanwhile."""
    one, many = size.of(4000, 1000), size.of(20_000, 4000)
    with Client(peer, server.url) as client:
        client.order("prepare")
        client.order("one", count=200)
        before = usage_of(client.pid).cpu_s, server.cpu_s()
        one_s = client.order("one", count=one)
        after = usage_of(client.pid).cpu_s, server.cpu_s()
    server.clean()
    with Client(peer, server.url) as client:
        client.order("prepare")
        client.order("many", count=500)
        many_s = client.order("many", count=many)
    return {
        "submit one /s": one / one_s,
        "submit one, client CPU ms/job": 1000 * (after[0] - before[0]) / one,
        "submit one, Redis CPU ms/job": 1000 * (after[1] - before[1]) / one,
        "submit many /s": many / many_s,
    }


def drain(peer: Peer, server: Server, size: Size) -> Figures:
    """A full queue and one new worker process: from when its first job runs to when all are recorded."""
    count = size.of(20_000, 8000) if peer.name in _FAST else size.of(5000, 2000)
    with Client(peer, server.url) as client:
        client.order("many", count=count)
        with WorkerProcess(peer, server.url) as worker:
            began = worker.hear("first", 60)
            redis_cpu_s = server.cpu_s()
            at = client.order("recorded", "at", count=count)
            cpu_s = usage_of(began["pid"]).cpu_s - began["cpu"]
            redis_cpu_s = server.cpu_s() - redis_cpu_s
    return {
        "drain /s": count / (at - began["first"]),
        "drain, worker CPU ms/job": 1000 * cpu_s / count,
        "drain, Redis CPU ms/job": 1000 * redis_cpu_s / count,
    }
