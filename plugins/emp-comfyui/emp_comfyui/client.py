"""ComfyUI's HTTP routes, as calls."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from attrs import frozen

from emp_comfyui.errors import refusal
from emp_comfyui.history import HistoryEntry, QueueView
from emp_comfyui.workflow import Workflow
from emp_core.connectors.http import HTTPConnector
from emp_core.errors import EmpError, InvalidJob, ServiceUnavailable

__all__ = ["Accepted", "ComfyUIClient"]

_QUICK_S = 15.0
_QUICK_LEAST_S = 1.0
_RECENT = "32"
_ALL_NODES_BYTES = 256 * 2**20
_QUEUE_BYTES = 192 * 2**20
"""A thousand workflows of 200 kB: a studio's server before a night."""
_ALL_NODES_S = 60.0
_NO_SUCH_ROUTE = (400, 404, 405, 501)
"""How servers, and proxies that let only some routes through, answer where there is none."""


@frozen
class Accepted:
    """A prompt that the server took.

    Attributes:
        prompt_id: the server's id: older ones do not take ours.
        node_errors: what is wrong with outputs that the server leaves out.
    """

    prompt_id: str
    node_errors: Any = None


class ComfyUIClient:
    """Calls to one server. All raise ServiceUnavailable or ConnectionLost when no answer comes.

    Args:
        http: how it is reached.
        stall_s: how long the server may think about a workflow before it answers; other questions get less.

    Attributes:
        is_away: whether somebody who keeps asking the server knows that it gives no answer now.
    """

    def __init__(self, http: HTTPConnector, *, stall_s: float) -> None:
        self.http = http
        self._stall_s = stall_s
        self.is_away = False
        self._quick_s = min(_QUICK_S, max(_QUICK_LEAST_S, stall_s))
        self._has_prompts: bool | None = None
        self._has_jobs: bool | None = None
        self._has_cancel: bool | None = None

    def forget(self) -> None:
        """The server may be another one now: what it can do is found out again."""
        self._has_prompts = self._has_jobs = self._has_cancel = None

    async def submit(self, workflow: Workflow, *, prompt_id: str, client_id: str) -> Accepted | None:
        """Put a workflow into the queue, under our id where the server takes one; None: it takes none this way.

        Raises:
            InvalidJob, MissingNode, MissingModel: the server refuses it; nothing was queued.
        """
        if self._has_prompts is False:
            return None
        body: dict[str, Any] = {
            "prompt": workflow.graph,
            "prompt_id": prompt_id,
            "client_id": client_id,
            "extra_data": {**workflow.extra_data, "client_id": client_id},
        }
        if workflow.targets is not None:
            body["partial_execution_targets"] = list(workflow.targets)
        reply = await self.http.request(
            "POST", "/prompt", json=body, silence_s=max(self._stall_s, _QUICK_S), accept=(400, 404, 405, 413, 500)
        )
        self._has_prompts = reply.status not in (404, 405)
        match reply.status:
            case 404 | 405:
                return None
            case 400:
                raise refusal(_json_or_none(reply.text), workflow)
            case 413:
                raise InvalidJob(
                    "the workflow is larger than the ComfyUI server takes",
                    hint="upload files instead of putting them into the workflow, or start it with --max-upload-size",
                )
            case 500:
                raise InvalidJob(
                    "the ComfyUI server broke on reading the workflow",
                    hint="its log says where; usually a node has inputs of the wrong shape",
                    details={"reason": "server_error", "status": 500},
                )
        answer = _json_or_none(reply.text)
        if not isinstance(answer, Mapping) or not isinstance(answer.get("prompt_id"), str):
            raise self.not_understood("POST /prompt")
        return Accepted(answer["prompt_id"], answer.get("node_errors"))

    async def queue(self) -> QueueView:
        """What waits and runs.

        Newer servers list it without the workflows, under ``/api/jobs``. Elsewhere the answer carries whole workflows: not to
        be asked for often.
        """
        if self._has_jobs is not False:
            view = await self._listed_jobs()
            self._has_jobs = view is not None
            if view is not None:
                return view
        reply = await self.http.request("GET", "/queue", silence_s=self._quick_s, max_bytes=_QUEUE_BYTES)
        answer = await anyio.to_thread.run_sync(_json_or_none, reply.text)
        if not isinstance(answer, Mapping):
            raise self.not_understood("GET /queue")
        return QueueView.read(answer)

    async def _listed_jobs(self) -> QueueView | None:
        reply = await self.http.request(
            "GET",
            "/api/jobs",
            params={"status": "in_progress,pending"},
            silence_s=self._quick_s,
            accept=(500, *_NO_SUCH_ROUTE),  # it breaks on anybody's prompt with odd extra_data
        )
        return QueueView.read_jobs(_json_or_none(reply.text)) if reply.status == 200 else None

    async def queue_remaining(self) -> int:
        """How many prompts wait and run. A few bytes."""
        answer = await self.http.request_json("GET", "/prompt", silence_s=self._quick_s)
        match answer:
            case {"exec_info": {"queue_remaining": int(count)}}:
                return count
        raise self.not_understood("GET /prompt")

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """How a prompt ended; None: it has not, or the server does not know it."""
        answer = await self.http.request_json("GET", f"/history/{quote(prompt_id, safe='')}", silence_s=self._quick_s)
        return HistoryEntry.read(prompt_id, answer.get(prompt_id)) if isinstance(answer, Mapping) else None

    async def recent_history(self, client_id: str) -> HistoryEntry | None:
        """The entry of the prompt with this client_id among the last ones: for servers that do not take our ids."""
        answer = await self.http.request_json("GET", "/history", params={"max_items": _RECENT}, silence_s=self._quick_s)
        for prompt_id, entry in answer.items() if isinstance(answer, Mapping) else ():
            read = HistoryEntry.read(prompt_id, entry)
            if read is not None and read.client_id == client_id:
                return read
        return None

    async def delete_history(self, prompt_ids: Sequence[str]) -> None:
        """Take prompts out of the history: it lives in the server's memory, with whole workflows."""
        await self.http.request(
            "POST",
            "/history",
            json={"delete": list(prompt_ids)},
            silence_s=self._quick_s,
            accept=(403, *_NO_SUCH_ROUTE),  # a proxy may not let it through, and the server does as well without
        )

    async def delete_waiting(self, prompt_id: str) -> None:
        """Take a prompt out of the queue. Answers alike whether it was there."""
        await self.http.request("POST", "/queue", json={"delete": [prompt_id]}, silence_s=self._quick_s)

    async def interrupt(self, prompt_id: str) -> None:
        """Stop a prompt that runs now. Servers before 0.3.57 ignore the id and stop **whatever** runs."""
        await self.http.request("POST", "/interrupt", json={"prompt_id": prompt_id}, silence_s=self._quick_s)

    async def cancel(self, prompt_id: str) -> bool:
        """Cancel a prompt, waiting or running, and nothing else; false: the server cannot, and nothing was done."""
        if self._has_cancel is not False:
            path = f"/api/jobs/{quote(prompt_id, safe='')}/cancel"
            reply = await self.http.request("POST", path, silence_s=self._quick_s, accept=_NO_SUCH_ROUTE)
            answer = _json_or_none(reply.text)
            self._has_cancel = reply.status == 200 and isinstance(answer, Mapping) and "cancelled" in answer
        return bool(self._has_cancel)

    async def free_cache(self) -> None:
        """Have the server forget the results of earlier prompts, once nothing runs."""
        await self.http.request("POST", "/free", json={"free_memory": True}, silence_s=_QUICK_S, accept=_NO_SUCH_ROUTE)

    async def system_stats(self) -> Mapping[str, Any]:
        """What the server says of itself and its devices.

        Raises:
            ServiceUnavailable: something else answers there.
        """
        answer = await self.http.request_json("GET", "/system_stats", silence_s=self._quick_s)
        if not isinstance(answer, Mapping) or not isinstance(answer.get("system"), Mapping):
            raise self.not_understood("GET /system_stats")
        return answer

    async def model_folders(self) -> list[str]:
        """The folders of models; empty for servers that do not tell."""
        return await self._names("/models")

    async def models(self, folder: str) -> list[str]:
        """The model files of a folder."""
        return await self._names(f"/models/{quote(folder, safe='')}")

    async def embeddings(self) -> list[str]:
        """The embeddings, without their extension."""
        return await self._names("/embeddings")

    async def node_classes(self) -> Any:
        """All node classes, as ``/object_info`` tells them: megabytes where many custom nodes are, and seconds of work."""
        reply = await self.http.request(
            "GET", "/object_info", silence_s=_ALL_NODES_S, max_bytes=_ALL_NODES_BYTES, accept=_NO_SUCH_ROUTE
        )
        return await anyio.to_thread.run_sync(_json_or_none, reply.text) if reply.status == 200 else None

    async def node_class(self, name: str) -> Mapping[str, Any] | None:
        """One node class; None: the server has none of that name."""
        reply = await self.http.request(
            "GET", f"/object_info/{quote(name, safe='')}", silence_s=self._quick_s, accept=_NO_SUCH_ROUTE
        )
        answer = _json_or_none(reply.text) if reply.status == 200 else None
        told = answer.get(name) if isinstance(answer, Mapping) else None
        return told if isinstance(told, Mapping) else None

    async def replaced_classes(self) -> list[str]:
        """Node classes that newer servers take though they do not have them: they put others in their place."""
        reply = await self.http.request("GET", "/node_replacements", silence_s=self._quick_s, accept=_NO_SUCH_ROUTE)
        answer = _json_or_none(reply.text) if reply.status == 200 else None
        return [str(name) for name in answer] if isinstance(answer, Mapping) else []

    async def _names(self, path: str) -> list[str]:
        reply = await self.http.request("GET", path, silence_s=self._quick_s, accept=(404,))
        names = _json_or_none(reply.text) if reply.status == 200 else None
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def not_understood(self, doing: str) -> EmpError:
        """The error for an answer that no ComfyUI server gives."""
        return ServiceUnavailable(
            f"{self.http.endpoint} answers {doing} as no ComfyUI server does",
            hint="is another program on this port? Check COMFYUI_HOST and COMFYUI_PORT",
            details={"endpoint": self.http.endpoint, "request": doing},
        )


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
