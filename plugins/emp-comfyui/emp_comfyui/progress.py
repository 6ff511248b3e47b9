"""How far a prompt is, from what the server says of its nodes."""

import math
import time
from collections.abc import Mapping
from typing import Any

from emp_comfyui.durations import Durations
from emp_comfyui.graph import needed_by, outputs_of
from emp_comfyui.needs import may_be_output
from emp_comfyui.workflow import Workflow

__all__ = ["ProgressTracker"]


class ProgressTracker:
    """The nodes of one prompt that are done, and the fractions of those that run, each counted by how long it should take.

    Cached nodes do not count, nor do those that nothing needs, nor ids that are not in the workflow (nodes put in at run time:
    their number is not known beforehand, and the node that they stand for counts). The fraction never falls.

    Servers before 0.3.45 say only which node runs now, so the one before it is done; later ones tell the state of every
    node, and nodes may run side by side, so from the first such message on only states count.

    Args:
        durations: what nodes are expected to take; learns from this prompt.
    """

    def __init__(self, workflow: Workflow, durations: Durations | None = None) -> None:
        self.node_id: str | None = None
        """The node that runs now, as last told."""
        self._display_node: str | None = None
        self._workflow = workflow
        self._durations = durations or Durations()
        graph = workflow.graph
        counted = needed_by(graph, outputs_of(graph, may_be_output(graph), workflow.targets)) or frozenset(graph)
        self._weights = {
            node_id: self._durations.expected_s(str(graph[node_id]["class_type"]), graph[node_id]["inputs"])
            for node_id in counted
        }
        self._cached: set[str] = set()
        self._done: set[str] = set()
        self._running: dict[str, float] = {}
        self._begun_at: dict[str, float] = {}
        self._steps: tuple[str, float, float] | None = None
        self._states_told = False
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        weights = {node_id: weight for node_id, weight in self._weights.items() if node_id not in self._cached}
        parts = {**self._running, **dict.fromkeys(self._done, 1.0)}
        total = math.fsum(weights.values())
        reached = math.fsum(part * weights.get(node_id, 0.0) for node_id, part in parts.items())
        told = reached / total if total else float(bool(self._cached))
        self._fraction = min(1.0, max(self._fraction, told))
        return self._fraction

    @property
    def message(self) -> str | None:
        """What runs now, for people: ``KSampler 3/20``."""
        if self.node_id is None:
            return None
        title = self._workflow.title_of(self._display_node or self.node_id)
        if self._steps is not None and self._steps[0] == self.node_id and self._steps[2] > 1:
            return f"{title} {self._steps[1]:g}/{self._steps[2]:g}"
        return title

    def nodes_cached(self, node_ids: Any) -> None:
        """``execution_cached``: these will not run."""
        if isinstance(node_ids, list):
            self._cached |= {node for node in node_ids if isinstance(node, str)} - self._done - self._running.keys()

    def node_executing(self, node_id: str, display_node: Any = None) -> None:
        """``executing``: this node begins; ``display_node`` is the one of the workflow that it stands for."""
        if not self._states_told and self.node_id is not None and self.node_id != node_id:
            self._finish(self.node_id)
        self.node_id = node_id
        self._display_node = display_node if isinstance(display_node, str) else None
        self._begin(node_id)

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
                self._begin(node_id)
                self._advance(node_id, part)

    def _begin(self, node_id: str) -> None:
        if node_id in self._workflow.graph and node_id not in self._done:
            self._begun_at.setdefault(node_id, time.monotonic())

    def _finish(self, node_id: str) -> None:
        if node_id not in self._workflow.graph or node_id in self._done:
            return
        self._done.add(node_id)
        self._running.pop(node_id, None)
        begun_at = self._begun_at.get(node_id)
        if begun_at is not None:
            node = self._workflow.graph[node_id]
            self._durations.learn(str(node["class_type"]), node["inputs"], time.monotonic() - begun_at)

    def _advance(self, node_id: str, part: float) -> None:
        if node_id in self._workflow.graph and node_id not in self._done:
            self._cached.discard(node_id)
            self._running[node_id] = max(part, self._running.get(node_id, 0.0))


def _part(value: Any, maximum: Any) -> float | None:
    if isinstance(value, bool) or isinstance(maximum, bool):
        return None
    if not isinstance(value, int | float) or not isinstance(maximum, int | float) or not maximum > 0:
        return None
    return min(1.0, max(0.0, value / maximum))
