"""What a waiting job costs in Redis's memory."""

from bench.environments import Peer
from bench.programs import Client
from bench.rounds import Figures, Size
from bench.servers import Server

__all__ = ["memory"]

_TEXT = "x" * 100


def memory(peer: Peer, server: Server, size: Size) -> Figures:
    """Waiting jobs with 100 bytes of payload: everything that grew with them, divided by their number."""
    count = size.of(20_000, 5000)
    with Client(peer, server.url) as client:
        client.order("many", count=100, text=_TEXT)
        before = server.client.info("memory")["used_memory"]
        client.order("many", count=count, text=_TEXT)
        after = server.client.info("memory")["used_memory"]
    return {"memory B/job": (after - before) / count}
