"""The progress of a running prompt's nodes, as ``progress_state`` frames tell it again and again."""

from typing import Any

import attrs


@attrs.define
class NodeIds:
    """A node's id, and the ids by which clients find it in their prompt when it was made at run time."""

    node_id: str
    display: str
    parent: str | None
    real: str

    def meta(self) -> dict[str, Any]:
        """As the history's ``meta`` names them."""
        return {
            "node_id": self.node_id,
            "display_node": self.display,
            "parent_node": self.parent,
            "real_node_id": self.real,
        }


@attrs.define
class NodeProgress:
    """Where one node stands. Values are floats while nothing was reported, as on the wire."""

    ids: NodeIds
    value: float
    maximum: float
    state: str = "running"


class PromptProgress:
    """All nodes of a prompt that have begun."""

    def __init__(self, prompt_id: str) -> None:
        """Nothing has begun."""
        self._prompt_id = prompt_id
        self.nodes: dict[str, NodeProgress] = {}

    def start(self, ids: NodeIds) -> None:
        """A node begins."""
        self.nodes[ids.node_id] = NodeProgress(ids, 0.0, 1.0)

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """A node has come further."""
        entry = self.nodes[node_id]
        entry.value, entry.maximum = value, maximum

    def finish(self, ids: NodeIds) -> None:
        """A node is done; one that was cached appears here for the first time."""
        entry = self.nodes.setdefault(ids.node_id, NodeProgress(ids, 0, 1))
        entry.value, entry.state = entry.maximum, "finished"

    def described(self) -> dict[str, Any]:
        """The data of a ``progress_state`` frame."""
        return {
            "prompt_id": self._prompt_id,
            "nodes": {
                node_id: {
                    "value": entry.value,
                    "max": entry.maximum,
                    "state": entry.state,
                    "node_id": node_id,
                    "prompt_id": self._prompt_id,
                    "display_node_id": entry.ids.display,
                    "parent_node_id": entry.ids.parent,
                    "real_node_id": entry.ids.real,
                }
                for node_id, entry in self.nodes.items()
            },
        }
