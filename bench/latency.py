"""How long a job takes to start, and its result to be seen, when there is little to do: 50 jobs a second, an idle worker."""

from bench.environments import Peer
from bench.peers.probe import REPORT
from bench.programs import Client, WorkerProcess
from bench.rounds import Figures, Size, percentile
from bench.servers import Server

__all__ = ["latency"]

_RATE = 50.0


def latency(peer: Peer, server: Server, size: Size) -> Figures:
    """An open loop: jobs are submitted when they are due, however long the ones before take. Both counted from then."""
    with Client(peer, server.url) as client, WorkerProcess(peer, server.url) as worker:
        client.order("latency", "results", rate=_RATE, count=50)
        client.order("one", count=1, sent=REPORT)
        worker.hear("delays", 30)
        results = client.order("latency", "results", rate=_RATE, count=size.of(500, 150))
        client.order("one", count=1, sent=REPORT)
        delays = worker.hear("delays", 30)["delays"]
    figures = {}
    for name, seconds in (("start", delays), ("result", results)):
        for share in (0.5, 0.99):
            figures[f"{name} p{share * 100:.0f} ms"] = 1000 * percentile(seconds, share)
    return figures
