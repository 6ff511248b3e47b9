"""Running one prompt: its nodes in order, the frames they cause, and the entry it leaves in the history."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import anyio
import attrs
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from emp_comfyui.testing.announcements import Announcer
from emp_comfyui.testing.execution_cache import ExecutionCache, Kept
from emp_comfyui.testing.execution_order import ExecutionOrder, is_link
from emp_comfyui.testing.faults import Faults
from emp_comfyui.testing.holds import Holds
from emp_comfyui.testing.node_class import (
    Blocked,
    NodeCall,
    NodeClass,
    NodeRegistry,
    Result,
    Site,
    out_of_memory,
)
from emp_comfyui.testing.progress import NodeIds
from emp_comfyui.testing.prompt_queue import Item
from emp_comfyui.testing.sockets import SocketHub
from emp_comfyui.testing.versions import Capabilities


class Interrupted(Exception):
    """Somebody has asked to stop what runs."""


@attrs.define
class Interrupts:
    """The one flag that an interrupt sets: it stops whatever runs when it is next looked at."""

    requested: bool = False


@attrs.frozen
class Tools:
    """What a run needs of the server."""

    hub: SocketHub
    nodes: NodeRegistry
    cache: ExecutionCache
    site: Site
    holds: Holds
    interrupts: Interrupts
    capabilities: Capabilities
    faults: Callable[[], Faults]
    sleep: Callable[[float], Awaitable[None]]


@attrs.frozen
class _Failed:
    node_id: str
    error: Exception
    inputs: Mapping[str, Sequence[Any]]


Step = Literal["done", "pending"] | _Failed


class PromptRun:
    """One run of one prompt."""

    def __init__(self, tools: Tools, item: Item) -> None:
        """Prepare to run ``item``."""
        self._tools = tools
        _, self._prompt_id, self._prompt, self._extra_data, self._outputs = item
        client_id = self._extra_data.get("client_id")
        self._client_id: str | None = None if client_id is None else str(client_id)
        self._graph: dict[str, Mapping[str, Any]] = dict(self._prompt)
        self._ids = {node_id: NodeIds(node_id, node_id, None, node_id) for node_id in self._graph}
        self._tell = Announcer(tools.hub, tools.capabilities, self._prompt_id, self._client_id)
        self._executed: list[str] = []
        self._expanded: dict[str, list[tuple[Any, ...]]] = {}
        self._results: dict[str, Sequence[Result] | _Failed] = {}
        self._cache = tools.cache.for_prompt(self._graph, tools.nodes, tools.site)
        self._shown = {node_id: self._with_fingerprint(node) for node_id, node in self._prompt.items()}
        self._order = ExecutionOrder(self._graph.__getitem__, self._is_kept, self._goes_first)

    async def run(self) -> dict[str, Any]:
        """Run the prompt to its end; returns ``outputs``, ``status`` and ``meta`` of the history entry."""
        self._tools.hub.current_client_id = self._client_id
        self._tools.interrupts.requested = False
        self._tell.message("execution_start", {})
        self._tell.message("execution_cached", {"nodes": [each for each in self._prompt if self._is_kept(each)]})
        failed = await self._run_nodes()
        if failed is None:
            self._tell.message("execution_success", {})
        else:
            self._tell_failure(failed)
        self._tools.hub.current_node_id = None
        return self._history_entry(success=failed is None)

    async def _run_nodes(self) -> _Failed | None:
        for output in self._outputs:
            self._order.add(output)
        async with anyio.create_task_group() as beside:
            while self._order:
                node_id = await self._order.next()
                step = await self._execute(node_id, beside)
                if step == "done":
                    self._order.finish(node_id)
                elif isinstance(step, _Failed):
                    beside.cancel_scope.cancel()
                    return step
        return None

    async def _execute(self, node_id: str, beside: TaskGroup) -> Step:
        kept = self._cache.get(node_id)
        if kept is not None:
            self._tell.executed(self._ids[node_id], kept.ui, self._tools.faults())
            self._tell.finish(self._ids[node_id])
            return "done"
        if node_id in self._expanded:
            return self._complete(node_id, self._expanded.pop(node_id), None)
        results = self._results.pop(node_id, None)
        if results is None:
            results = await self._begin(node_id, beside)
        if results is None:
            return "pending"
        if isinstance(results, _Failed):
            return results
        return self._conclude(node_id, results)

    async def _begin(self, node_id: str, beside: TaskGroup) -> Sequence[Result] | _Failed | None:
        """Start a node; None if it goes on beside the others."""
        ids = self._ids[node_id]
        self._tell.begin(ids)
        node_class = self._class_of(node_id)
        inputs = self._inputs_of(node_id, node_class)
        if node_class.asynchronous:
            self._order.hold(node_id)
            beside.start_soon(self._run_beside, node_id, node_class, inputs)
            return None
        return await self._run_class(node_id, node_class, inputs)

    async def _run_beside(self, node_id: str, node_class: NodeClass, inputs: dict[str, list[Any]]) -> None:
        results = await self._run_class(node_id, node_class, inputs)
        if isinstance(results, _Failed):
            results = attrs.evolve(results, inputs={})  # as the real server reports them
        self._results[node_id] = results
        self._order.let_go(node_id)

    async def _run_class(
        self, node_id: str, node_class: NodeClass, inputs: dict[str, list[Any]]
    ) -> Sequence[Result] | _Failed:
        try:
            await checkpoint()  # lets frames go out and requests come in between two nodes
            self._stop_if_interrupted()
            if {node_id, node_class.name} & self._tools.faults().out_of_memory:
                raise out_of_memory()
            await self._tools.holds.pass_node(node_id, node_class.name)
            count = max((len(values) for values in inputs.values()), default=1)
            slices = [
                {name: values[index if index < len(values) else -1] for name, values in inputs.items()}
                for index in range(count)
            ]
            return [await self._run_once(node_id, node_class, each) for each in slices]
        except Exception as error:
            return _Failed(node_id, error, inputs)  # whatever a node raises becomes an execution_error frame

    async def _run_once(self, node_id: str, node_class: NodeClass, inputs: dict[str, Any]) -> Result:
        blocked = next((value for value in inputs.values() if isinstance(value, Blocked)), None)
        if blocked is not None:
            self._tell.blocked(node_id, node_class.name, self._executed, blocked)
            return Result(outputs=tuple(Blocked() for _ in node_class.outputs))
        call = NodeCall(
            node_id, node_class.name, self._prompt_id, inputs, self._shown, self._extra_data, self._tools.site, self
        )
        given = await node_class.run(call)
        if given is None:
            return Result()
        return given if isinstance(given, Result) else Result(outputs=given)

    def _conclude(self, node_id: str, results: Sequence[Result]) -> Step:
        ui = _merged_ui([result.ui for result in results if result.ui])
        if ui:
            self._tell.executed(self._ids[node_id], ui, self._tools.faults())
        if not any(result.expand for result in results):
            return self._complete(node_id, self._values(node_id, results), ui)
        self._expand(node_id, results)
        return "pending"

    def _values(self, node_id: str, results: Sequence[Result]) -> list[tuple[Any, ...]]:
        node_class = self._class_of(node_id)
        values: list[tuple[Any, ...]] = []
        for slot in range(len(node_class.outputs)):
            column = [result.outputs[slot] for result in results]
            if node_class.is_list(slot):
                column = [
                    each for listed in column for each in (listed if not isinstance(listed, Blocked) else [listed])
                ]
            values.append(tuple(column))
        return values

    def _expand(self, node_id: str, results: Sequence[Result]) -> None:
        """Put the graph that a node gave back in its place; the node itself ends after it."""
        values: list[list[Any]] = [[] for _ in self._class_of(node_id).outputs]
        for number, result in enumerate(results):
            prefix = f"{node_id}.0.{number}."
            local = result.expand or {}
            for local_id, node in local.items():
                new_id = prefix + local_id
                inputs = {name: _prefixed(value, local, prefix) for name, value in node.get("inputs", {}).items()}
                self._graph[new_id] = {**node, "inputs": inputs}
                parent = self._ids[node_id]
                self._ids[new_id] = NodeIds(new_id, parent.display, node_id, parent.real)
            for slot, value in enumerate(result.outputs):
                values[slot].append(_prefixed(value, local, prefix))
            for local_id in local:
                if self._class_of(prefix + local_id).output_node:
                    self._order.add(prefix + local_id, waiter=node_id)
            for value in (each for column in values for each in column if is_link(each)):
                self._order.add(value[0], waiter=node_id)
        self._expanded[node_id] = [tuple(column) for column in values]

    def _complete(self, node_id: str, values: list[tuple[Any, ...]], ui: Mapping[str, Any] | None) -> Step:
        outputs = tuple(tuple(inner for value in column for inner in self._resolved(value)) for column in values)
        meta = self._ids[node_id].meta() if ui else None
        self._cache.put(node_id, Kept(outputs, ui or None, meta))
        self._executed.append(node_id)
        self._tell.finish(self._ids[node_id])
        return "done"

    def _resolved(self, value: Any) -> tuple[Any, ...]:
        return self._linked_values(value) if is_link(value) else (value,)

    def _linked_values(self, link: list[Any]) -> tuple[Any, ...]:
        kept = self._cache.get(link[0])
        return () if kept is None else kept.outputs[link[1]]

    def _inputs_of(self, node_id: str, node_class: NodeClass) -> dict[str, list[Any]]:
        inputs: dict[str, list[Any]] = {}
        for name, value in self._graph[node_id].get("inputs", {}).items():
            if is_link(value):
                inputs[name] = list(self._linked_values(value))
            elif node_class.input_named(name) is not None:
                inputs[name] = [value]
        for name, kind in node_class.more.get("hidden", {}).items():
            is_prompt = "PROMPT" in (kind, kind[0])
            inputs[name] = [self._prompt if is_prompt else self._extra_data.get("extra_pnginfo")]
        return inputs

    def _with_fingerprint(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """A node as saved files show it: where it says when it has changed, that stands with it."""
        node_class = self._tools.nodes.get(node["class_type"])
        if node_class is None or node_class.fingerprint is None:
            return node
        return {**node, "is_changed": [node_class.fingerprint(node["inputs"], self._tools.site)]}

    def _is_kept(self, node_id: str) -> bool:
        return self._cache.get(node_id) is not None

    def _goes_first(self, node_id: str) -> bool:
        node_class = self._class_of(node_id)
        return node_class.output_node or node_class.asynchronous

    def _class_of(self, node_id: str) -> NodeClass:
        name = self._graph[node_id]["class_type"]
        node_class = self._tools.nodes.get(name)
        if node_class is None:
            raise LookupError(f"node class {name!r} of node {node_id} was removed while prompt {self._prompt_id} ran")
        return node_class

    def _stop_if_interrupted(self) -> None:
        if self._tools.interrupts.requested:
            self._tools.interrupts.requested = False
            raise Interrupted

    # What a running node may ask for (NodeReporter).

    async def step(
        self, node_id: str, value: float, maximum: float, preview: tuple[bytes, str] | None, seconds: float
    ) -> None:
        """Let the time of a step pass, then report progress and perhaps an image."""
        await self._tools.sleep(seconds)
        await self._tools.holds.pass_step(node_id, self._class_of(node_id).name, value)
        self._stop_if_interrupted()
        self._tell.step(self._ids[node_id], value, maximum, preview)

    async def sleep(self, node_id: str, seconds: float) -> None:
        """Let time pass; nothing is reported and no interrupt is noticed."""
        del node_id
        await self._tools.sleep(seconds)

    def text(self, node_id: str, message: str, *, to_everybody: bool) -> None:
        """Send progress text."""
        self._tell.text(node_id, message, to_everybody=to_everybody)

    def send(self, kind: str, data: Mapping[str, Any], *, to_everybody: bool) -> None:
        """Send a text frame of any type."""
        self._tell.custom(kind, data, to_everybody=to_everybody)

    def _tell_failure(self, failed: _Failed) -> None:
        real = self._ids[failed.node_id].real
        where = {
            "node_id": real,
            "node_type": self._graph[real]["class_type"],
            "executed": list(self._executed),
        }
        if isinstance(failed.error, Interrupted):
            self._tell.interrupted(where)
        else:
            self._tell.failed(where, failed.error, failed.inputs, list(self._graph))

    def _history_entry(self, *, success: bool) -> dict[str, Any]:
        outputs, meta = {}, {}
        for node_id in self._cache.node_ids():
            kept = self._cache.get(node_id)
            if kept is not None and kept.ui is not None and not self._tools.faults().no_outputs:
                outputs[node_id], meta[node_id] = kept.ui, kept.meta
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": self._tell.messages,
        }
        return {"outputs": outputs, "status": status, "meta": meta}


def _prefixed(value: Any, local: Mapping[str, Any], prefix: str) -> Any:
    return [prefix + value[0], value[1]] if is_link(value) and value[0] in local else value


def _merged_ui(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not parts:
        return {}
    return {key: [each for part in parts for each in part.get(key, ())] for key in parts[0]}
