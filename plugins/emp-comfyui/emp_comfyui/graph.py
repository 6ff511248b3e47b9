"""A workflow as a graph: which nodes feed which, and which of them can run at all."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

__all__ = ["Graph", "links_of", "needed_by", "outputs_of", "sinks"]

Graph = Mapping[str, Mapping[str, Any]]
"""Node id → ``{"class_type", "inputs"}``."""


def links_of(node: Mapping[str, Any]) -> Iterator[str]:
    """The ids of the nodes that feed this one: a link is ``["node id", slot]``."""
    inputs = node.get("inputs")
    for value in inputs.values() if isinstance(inputs, Mapping) else ():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
            yield str(value[0])


def sinks(graph: Graph) -> frozenset[str]:
    """The nodes that feed no other."""
    return frozenset(graph) - {source for node in graph.values() for source in links_of(node)}


def needed_by(graph: Graph, outputs: Collection[str]) -> frozenset[str]:
    """The output nodes themselves and all that feeds them: what the server runs, and checks."""
    found: set[str] = set()
    waiting = [node_id for node_id in outputs if node_id in graph]
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting += [source for source in links_of(graph[node_id]) if source in graph]
    return frozenset(found)


def outputs_of(graph: Graph, is_output: Callable[[str], bool], targets: Collection[str] | None) -> frozenset[str]:
    """The nodes that a prompt is run for: those of an output class, or of them the asked-for targets."""
    chosen = graph if targets is None else [node_id for node_id in targets if node_id in graph]
    return frozenset(node_id for node_id in chosen if is_output(node_id))
