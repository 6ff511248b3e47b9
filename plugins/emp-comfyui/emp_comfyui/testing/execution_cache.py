"""What earlier prompts left behind: results by the content of a node and of all that is in front of it.

As with the real server's default cache, only what the last prompt had is kept, node ids do not matter, and nobody looks
whether the files are still there.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import attrs

from emp_comfyui.testing.execution_order import is_link
from emp_comfyui.testing.node_class import NodeRegistry, Site


@attrs.frozen
class Kept:
    """The result of a node: a list of values per output, and its ui output with the ids under which it was made."""

    outputs: tuple[tuple[Any, ...], ...]
    ui: Mapping[str, Any] | None
    meta: Mapping[str, Any] | None


class ExecutionCache:
    """Results by signature."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[str, Kept] = {}

    def clear(self) -> None:
        """Forget everything (``POST /free`` with ``free_memory``)."""
        self._kept.clear()

    def for_prompt(self, graph: Mapping[str, Any], nodes: NodeRegistry, site: Site) -> "PromptCache":
        """The cache as one prompt sees it; what no node of the prompt could use is dropped."""
        signatures = _signatures(graph, nodes, site)
        wanted = set(signatures.values())
        self._kept = {key: kept for key, kept in self._kept.items() if key in wanted}
        return PromptCache(self._kept, signatures)


class PromptCache:
    """The results of one prompt's nodes, by node id; those of nodes made at run time are kept for this run only."""

    def __init__(self, kept: dict[str, Kept], signatures: dict[str, str]) -> None:
        """A view on ``kept``."""
        self._kept = kept
        self._signatures = signatures

    def get(self, node_id: str) -> Kept | None:
        """The result of a node, if it is there."""
        return self._kept.get(self._signatures.get(node_id, ""))

    def put(self, node_id: str, kept: Kept) -> None:
        """Keep the result of a node."""
        self._kept[self._signatures.setdefault(node_id, f"of this run only: {uuid.uuid4()}")] = kept

    def node_ids(self) -> list[str]:
        """All nodes of the prompt, and those made at run time that have a result."""
        return list(self._signatures)


def _signatures(graph: Mapping[str, Any], nodes: NodeRegistry, site: Site) -> dict[str, str]:
    known: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id not in known:
            node = graph[node_id]
            inputs = node.get("inputs", {})
            parts = {
                name: ["from", sign(value[0]), value[1]] if is_link(value) and value[0] in graph else ["is", value]
                for name, value in inputs.items()
            }
            content = json.dumps([node.get("class_type"), _fingerprint(node, nodes, site), parts], sort_keys=True)
            known[node_id] = hashlib.sha256(content.encode()).hexdigest()
        return known[node_id]

    return {node_id: sign(node_id) for node_id in graph if _is_acyclic(graph, node_id)}


def _fingerprint(node: Mapping[str, Any], nodes: NodeRegistry, site: Site) -> str:
    node_class = nodes.get(node.get("class_type"))
    if node_class is None:
        return ""
    if node_class.never_cached:
        return uuid.uuid4().hex
    if node_class.fingerprint is None:
        return ""
    return node_class.fingerprint(node.get("inputs", {}), site)


def _is_acyclic(graph: Mapping[str, Any], start: str) -> bool:
    """False for a node on or behind a cycle: it can be no part of what runs, and has no signature."""
    open_nodes: set[str] = set()
    done: set[str] = set()

    def visit(node_id: str) -> bool:
        if node_id in done or node_id not in graph:
            return True
        if node_id in open_nodes:
            return False
        open_nodes.add(node_id)
        links = [value[0] for value in graph[node_id].get("inputs", {}).values() if is_link(value)]
        sound = all(visit(origin) for origin in links)
        open_nodes.discard(node_id)
        done.add(node_id)
        return sound

    return visit(start)
