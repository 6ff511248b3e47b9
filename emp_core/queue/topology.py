"""Finding the one server that holds the queue, where that may change: behind sentinels, and in a cluster.

All keys of a hub lie in one slot, so that a cluster has exactly one server for it at a time, as sentinels have. A client
for either is therefore an ordinary one whose new connections ask first where to go; errors that say that the server
moved close the old ones.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from emp_core.queue.addresses import Address, Node
from emp_core.queue.sending import QuickConnection

__all__ = ["ClusterLocator", "FollowingConnection", "FollowingTLSConnection", "Locator", "SentinelLocator"]

_ASK_S = 1.0
"""How long those who know where the server is get to answer."""
_ASKED_MOST = 7


class Locator(Protocol):
    """Knows whom to ask where the queue's server is."""

    async def find(self) -> Node:
        """Where it is now.

        Raises:
            redis.exceptions.ConnectionError: nobody knows.
        """
        ...

    def moved(self, node: Node | None) -> None:
        """Told when the server says that it is not the right one (any more), and which one is, if it knows."""
        ...


class FollowingConnection(QuickConnection):
    """A connection that goes to wherever the server is when it is made."""

    def __init__(self, *, locator: Locator, **options: Any) -> None:
        super().__init__(**options)
        self._locator = locator

    async def connect(self) -> None:
        """Connect, and log in: one that takes connections and says nothing is not the server any more."""
        try:
            await super().connect()  # type: ignore[no-untyped-call]  # redis-py annotates no results
        except BaseException:
            self._locator.moved(None)
            raise

    async def _connect(self) -> None:
        self.host, self.port = await self._locator.find()
        await super()._connect()  # type: ignore[no-untyped-call]


class FollowingTLSConnection(FollowingConnection, SSLConnection):
    """The same, encrypted."""


class SentinelLocator:
    """Asks sentinels. Of several answers the one with the latest failover counts: a sentinel may be cut off from the rest."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def find(self) -> Node:
        """The master's address."""
        enough = len(self._address.nodes) // 2 + 1
        answers, failures = await _ask(self._address.nodes, self._ask_one, enough)
        if not answers:
            raise exceptions.ConnectionError(f"no sentinel knows {self._address.service!r}: {'; '.join(failures)}")
        _, host, port = max(answers)
        return str(host), int(port)

    def moved(self, node: Node | None) -> None:
        """Nothing to do: the sentinels are asked every time."""

    async def _ask_one(self, node: Node) -> tuple[int, str, int]:
        async with _throwaway(node, self._address.tls, self._address.sentinel_options) as sentinel:
            flat = await sentinel.execute_command("SENTINEL", "MASTER", self._address.service)
            state = dict(zip(flat[::2], flat[1::2], strict=True))
            return int(state["config-epoch"]), state["ip"], int(state["port"])


class ClusterLocator:
    """Asks the cluster's nodes, given and found, who has the slot; most of those that answer first are right.

    Args:
        tag: what decides about the slot: the hash tag of the namespace.
    """

    def __init__(self, address: Address, tag: str) -> None:
        self._address = address
        self._slot = key_slot(tag.encode())
        self._known: dict[Node, None] = dict.fromkeys(address.nodes)
        self._told: Node | None = None

    async def find(self) -> Node:
        """The address of the node that has the slot."""
        if self._told is not None:
            return self._told
        asked = list(self._known)[:_ASKED_MOST]
        answers, failures = await _ask(asked, self._ask_one, len(asked) // 2 + 1)
        found = [owner for owner in answers if owner is not None]
        if not found:
            raise exceptions.ConnectionError(f"nobody serves slot {self._slot}: {'; '.join(failures) or 'not covered'}")
        owner: Node = Counter(found).most_common(1)[0][0]
        return owner

    def moved(self, node: Node | None) -> None:
        """Go where we were told to; ask again if that was no help."""
        self._told = node
        if node is not None:
            self._known.setdefault(node)

    async def _ask_one(self, node: Node) -> Node | None:
        async with _throwaway(node, self._address.tls, {**self._address.options, "db": 0}) as client:
            ranges = await client.execute_command("CLUSTER", "SLOTS")
        for first, last, *servers in ranges:
            if first <= self._slot <= last:
                # A node that does not know its own host tells none: it is the one that was asked.
                nodes = [(host or node[0], int(port)) for host, port, *_ in servers]
                self._known.update(dict.fromkeys(nodes))
                return nodes[0]
        return None


@asynccontextmanager
async def _throwaway(node: Node, tls: bool, options: Mapping[str, Any]) -> AsyncIterator[Any]:
    client = Redis(
        host=node[0],
        port=node[1],
        ssl=tls,
        protocol=2,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=_ASK_S,
        socket_connect_timeout=_ASK_S,
        **options,
    )
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_ASK_S):
            await client.aclose()


async def _ask(
    nodes: Sequence[Node], ask: Callable[[Node], Awaitable[Any]], enough: int
) -> tuple[list[Any], list[str]]:
    """Ask all at once, until enough have answered or the time is up."""
    answers: list[Any] = []
    failures: list[str] = []

    async def one(node: Node) -> None:
        try:
            answers.append(await ask(node))
        except (exceptions.RedisError, OSError) as error:
            failures.append(f"{node[0]}:{node[1]}: {error}")
        if len(answers) >= enough:
            group.cancel_scope.cancel()

    with anyio.move_on_after(_ASK_S):
        async with anyio.create_task_group() as group:
            for node in nodes:
                group.start_soon(one, node)
    return answers, failures
