"""Which node of a prompt runs next.

A real server keeps the nodes that still have to run, each with the number of inputs it waits for, and among the ready
ones prefers an output node (or one that awaits), then one that leads to an output directly or over one node, then the
one it met first. The recordings show this order; here it is built anew from that description.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from emp_comfyui.testing.bell import Bell

Graph = Mapping[str, Mapping[str, Any]]


def is_link(value: object) -> bool:
    """Whether an input's value is a link ``["node id", slot]``."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


class ExecutionOrder:
    """The nodes that still have to run, and who waits for whom."""

    def __init__(
        self,
        node_of: Callable[[str], Mapping[str, Any]],
        is_done: Callable[[str], bool],
        goes_first: Callable[[str], bool],
    ) -> None:
        """``is_done``: its outputs are there already; ``goes_first``: an output node or one that awaits."""
        self._node_of = node_of
        self._is_done = is_done
        self._goes_first = goes_first
        self._waits_for: dict[str, set[str]] = {}
        self._held: set[str] = set()
        self._changed = Bell()

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return bool(self._waits_for)

    def add(self, node_id: str, waiter: str | None = None) -> None:
        """Add a node and all it needs; ``waiter`` cannot run before it."""
        if waiter is not None:
            self._waits_for[waiter].add(node_id)
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current in self._waits_for:
                continue
            needed = [origin for origin in _origins(self._node_of(current)) if not self._is_done(origin)]
            self._waits_for[current] = set(needed)
            waiting.extend(needed)

    def hold(self, node_id: str) -> None:
        """Keep a node from being chosen while its work goes on elsewhere."""
        self._held.add(node_id)

    def let_go(self, node_id: str) -> None:
        """The work elsewhere has ended."""
        self._held.discard(node_id)
        self._changed.ring()

    def finish(self, node_id: str) -> None:
        """The node is done: those behind it wait for one less."""
        del self._waits_for[node_id]
        for waits in self._waits_for.values():
            waits.discard(node_id)

    async def next(self) -> str:
        """The next node to run; waits while all that is ready works elsewhere."""
        while True:
            ready = [each for each, waits in self._waits_for.items() if not waits and each not in self._held]
            if ready:
                return self._preferred(ready)
            await self._changed.wait()

    def _preferred(self, ready: list[str]) -> str:
        for each in ready:
            if self._goes_first(each):
                return each
        for distance in (1, 2):
            for each in ready:
                if any(self._goes_first(behind) for behind in self._behind(each, distance)):
                    return each
        return ready[0]

    def _behind(self, node_id: str, distance: int) -> Iterable[str]:
        direct = [each for each, waits in self._waits_for.items() if node_id in waits]
        if distance == 1:
            return direct
        return [further for each in direct for further in self._behind(each, distance - 1)]


def _origins(node: Mapping[str, Any]) -> list[str]:
    return [value[0] for value in node.get("inputs", {}).values() if is_link(value)]
