"""Ports for servers that a test starts as processes of their own, which have to be told where to listen."""

import random
import socket
from collections.abc import Collection

__all__ = ["free_port", "free_ports"]

_HOST = "127.0.0.1"
_PORTS = range(10_000, 20_000)
"""Below what systems give away, which would go to others before it is used, and away from the embedded Redis's."""
_random = random.SystemRandom()  # a test that seeds the others would get the same ports in every process


def free_port(*, beside: Collection[int] = ()) -> int:
    """One port, as `free_ports` finds them."""
    [port] = free_ports(1, beside=beside)
    return port


def free_ports(count: int, *, beside: Collection[int] = ()) -> list[int]:
    """So many ports of this machine that nobody listens on now.

    Args:
        beside: how far from each port others are wanted that are free as well: ``(1,)`` for the next one.

    Raises:
        RuntimeError: there are not so many.
    """
    found: list[int] = []
    wanted: set[int] = set()
    for port in _random.sample(_PORTS, min(len(_PORTS), 1000)):
        these = {port, *(port + distance for distance in beside)}
        if these.isdisjoint(wanted) and all(map(_is_free, these)):
            found.append(port)
            wanted |= these
        if len(found) == count:
            return found
    raise RuntimeError(
        f"{count} free ports were looked for between {_PORTS.start} and {_PORTS.stop}: {len(found)} found"
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return False
    return True
