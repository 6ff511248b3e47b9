"""The frames that a running prompt causes, and what of them its history entry keeps."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from emp_comfyui.testing import binary_frames
from emp_comfyui.testing.faults import Faults
from emp_comfyui.testing.node_class import Blocked, NodeFailure
from emp_comfyui.testing.pictures import Picture, as_tensor_text
from emp_comfyui.testing.progress import NodeIds, PromptProgress
from emp_comfyui.testing.sockets import Preview, SocketHub
from emp_comfyui.testing.versions import Capabilities

_TRACEBACK = ['  File "ComfyUI/execution.py", line 496, in execute\n', '  File "ComfyUI/nodes.py", line 1, in run\n']


class Announcer:
    """Tells the clients of one prompt what happens to it.

    Frames go to the client whose client_id the prompt carries; without one some go to everybody and the rest to nobody.
    """

    def __init__(self, hub: SocketHub, can: Capabilities, prompt_id: str, client_id: str | None) -> None:
        """For one prompt."""
        self.messages: list[list[Any]] = []
        self._hub = hub
        self._can = can
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._progress = PromptProgress(prompt_id)

    def message(self, kind: str, data: Mapping[str, Any], *, to_everybody: bool = False) -> None:
        """Send a frame that the history keeps as well."""
        full = {**data, "prompt_id": self._prompt_id, "timestamp": int(time.time() * 1000)}
        self.messages.append([kind, full])
        if self._client_id is not None or to_everybody:
            self._hub.announce(kind, full, self._client_id)

    def begin(self, ids: NodeIds) -> None:
        """A node begins."""
        self._progress.start(ids)
        self._state()
        self._hub.current_node_id = ids.display
        self._own("executing", {"node": ids.node_id, "display_node": ids.display})

    def finish(self, ids: NodeIds) -> None:
        """A node is done."""
        self._progress.finish(ids)
        self._state()

    def executed(self, ids: NodeIds, ui: Mapping[str, Any] | None, faults: Faults) -> None:
        """A node has given something to show."""
        if not faults.no_outputs:
            self._own("executed", {"node": ids.node_id, "display_node": ids.display, "output": ui})

    def step(self, ids: NodeIds, value: float, maximum: float, preview: tuple[bytes, str] | None) -> None:
        """A node has come further. A preview with metadata goes before the ``progress`` frame, one without behind it."""
        self._progress.update(ids.node_id, value, maximum)
        self._state()
        described = preview is not None and self._hub.takes_metadata(self._client_id)
        if preview is not None and described:
            self._hub.announce_preview(Preview(*preview, self._metadata(ids)), self._client_id)
        data = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": ids.node_id}
        self._hub.announce("progress", data, self._client_id)
        if preview is not None and not described:
            self._hub.announce_preview(Preview(*preview, None), self._client_id)

    def text(self, node_id: str, words: str, *, to_everybody: bool) -> None:
        """Progress text."""
        if self._can.progress_text:
            self._hub.announce_bytes(binary_frames.text(node_id, words), None if to_everybody else self._client_id)

    def custom(self, kind: str, data: Mapping[str, Any], *, to_everybody: bool) -> None:
        """A frame of a node's own type."""
        self._hub.announce(kind, data, None if to_everybody else self._client_id)

    def blocked(self, node_id: str, class_name: str, executed: Sequence[str], blocked: Blocked) -> None:
        """A node was not run; the prompt goes on. The history keeps nothing of it."""
        if blocked.message is None:
            return
        data = {
            "prompt_id": self._prompt_id,
            "node_id": node_id,
            "node_type": class_name,
            "executed": list(executed),
            "exception_message": f"Execution Blocked: {blocked.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self._hub.announce("execution_error", data, self._client_id)

    def interrupted(self, where: Mapping[str, Any]) -> None:
        """The prompt was stopped."""
        self.message("execution_interrupted", where, to_everybody=True)

    def failed(
        self, where: Mapping[str, Any], error: Exception, inputs: Mapping[str, Sequence[Any]], node_ids: Sequence[str]
    ) -> None:
        """A node has failed, and the prompt with it."""
        told = {
            **where,
            "exception_message": _message_of(error),
            "exception_type": _type_of(error),
            "traceback": list(_TRACEBACK),
            "current_inputs": {name: [_printed(each) for each in values] for name, values in inputs.items()},
            "current_outputs": list(node_ids),
        }
        self.message("execution_error", told)

    def _own(self, kind: str, data: Mapping[str, Any]) -> None:
        if self._client_id is not None:
            self._hub.announce(kind, {**data, "prompt_id": self._prompt_id}, self._client_id)

    def _state(self) -> None:
        if self._can.progress_state:
            self._hub.announce("progress_state", self._progress.described(), self._client_id)

    def _metadata(self, ids: NodeIds) -> dict[str, Any]:
        return {
            "node_id": ids.node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": ids.display,
            "parent_node_id": ids.parent,
            "real_node_id": ids.real,
        }


def _message_of(error: Exception) -> str:
    return str(error) if _type_of(error) == "torch.OutOfMemoryError" else f"{error}\n"


def _type_of(error: Exception) -> str:
    if isinstance(error, NodeFailure):
        return error.exception_type
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _printed(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, tuple) and value and isinstance(value[0], Picture):
        return as_tensor_text(value)
    return str(value)
