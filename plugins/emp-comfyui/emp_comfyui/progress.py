"""How far a prompt is, from what the server says of its nodes."""

from collections.abc import Mapping
from typing import Any

from emp_comfyui.workflow import Workflow

__all__ = ["ProgressTracker"]


class ProgressTracker:
    """Counts the nodes of one prompt: those that are done, and the fractions of those that run, over all of them.

    Cached nodes are done. Ids that are not in the workflow (nodes put in at run time) count for nothing: their number is
    not known beforehand, and the node that they stand for counts. The fraction never falls.

    Servers before 0.3.45 say only which node runs now, so the one before it is done; later ones tell the state of every
    node, and nodes may run side by side, so from the first such message on only states count.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.node_id: str | None = None
        """The node that runs now, as last told."""
        self._workflow = workflow
        self._done: set[str] = set()
        self._running: dict[str, float] = {}
        self._steps: tuple[str, float, float] | None = None
        self._states_told = False
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        running = sum(part for node_id, part in self._running.items() if node_id not in self._done)
        told = (len(self._done) + running) / len(self._workflow.graph)
        self._fraction = min(1.0, max(self._fraction, told))
        return self._fraction

    @property
    def message(self) -> str | None:
        """What runs now, for people: ``KSampler 3/20``."""
        if self.node_id is None:
            return None
        title = self._workflow.title_of(self.node_id)
        if self._steps is not None and self._steps[0] == self.node_id and self._steps[2] > 1:
            return f"{title} {self._steps[1]:g}/{self._steps[2]:g}"
        return title

    def nodes_cached(self, node_ids: Any) -> None:
        """``execution_cached``: these will not run."""
        if isinstance(node_ids, list):
            self._done |= {node for node in node_ids if isinstance(node, str) and node in self._workflow.graph}

    def node_executing(self, node_id: str) -> None:
        """``executing``: this node begins."""
        if not self._states_told and self.node_id is not None and self.node_id != node_id:
            self._finish(self.node_id)
        self.node_id = node_id

    def node_executed(self, node_id: Any) -> None:
        """``executed``: this node's outputs are there."""
        if isinstance(node_id, str):
            self._finish(node_id)

    def node_step(self, node_id: Any, value: Any, maximum: Any) -> None:
        """``progress``: a step of a node."""
        part = _part(value, maximum)
        if isinstance(node_id, str) and part is not None:
            self._steps = (node_id, float(value), float(maximum))
            self._advance(node_id, part)

    def node_states(self, nodes: Any) -> None:
        """``progress_state``: all nodes that began so far, again and again."""
        if not isinstance(nodes, Mapping):
            return
        self._states_told = True
        for node_id, state in nodes.items():
            if not isinstance(state, Mapping):
                continue
            if state.get("state") == "finished":
                self._finish(node_id)
            elif (part := _part(state.get("value"), state.get("max"))) is not None:
                self._advance(node_id, part)

    def _finish(self, node_id: str) -> None:
        if node_id in self._workflow.graph:
            self._done.add(node_id)
            self._running.pop(node_id, None)

    def _advance(self, node_id: str, part: float) -> None:
        if node_id in self._workflow.graph and node_id not in self._done:
            self._running[node_id] = max(part, self._running.get(node_id, 0.0))


def _part(value: Any, maximum: Any) -> float | None:
    if isinstance(value, bool) or isinstance(maximum, bool):
        return None
    if not isinstance(value, int | float) or not isinstance(maximum, int | float) or not maximum > 0:
        return None
    return min(1.0, max(0.0, value / maximum))
