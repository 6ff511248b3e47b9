"""Routes of prompts: putting them in, the queue, the history, interrupts, freeing memory."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from emp_comfyui.testing.records import InterruptRecord, PromptRecord
from emp_comfyui.testing.validation import validate_prompt

if TYPE_CHECKING:
    from emp_comfyui.testing.server import FakeComfyUI


class PromptRoutes:
    """Handlers of ``/prompt``, ``/queue``, ``/history``, ``/interrupt`` and ``/free``.

    A body that cannot be handled raises, which the middleware turns into the 500 with plain text that clients know.
    """

    def __init__(self, server: FakeComfyUI) -> None:
        """For one server."""
        self._server = server
        self._late_reads: dict[str, int] = {}

    def routes(self) -> list[web.RouteDef]:
        """All routes, without ``/api``."""
        return [
            web.get("/prompt", self.get_prompt),
            web.post("/prompt", self.post_prompt),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.post_queue),
            web.get("/history", self.get_history),
            web.post("/history", self.post_history),
            web.get("/history/{prompt_id}", self.get_history_entry),
            web.post("/interrupt", self.post_interrupt),
            web.post("/free", self.post_free),
        ]

    async def get_prompt(self, request: web.Request) -> web.Response:
        """How many prompts wait or run."""
        del request
        return web.json_response(self._server.queue_info())

    async def post_prompt(self, request: web.Request) -> web.Response:
        """Check a prompt and put it into the queue."""
        status, answer = self.take(await request.json())
        return web.json_response(answer, status=status)

    def take(self, body: Any) -> tuple[int, dict[str, Any]]:
        """Check a prompt and put it into the queue; gives the status and the answer."""
        number = self._number_for(body)
        if "prompt" not in body:
            return 400, self._no_prompt()
        prompt, can = self._replaced(body["prompt"]), self._server.capabilities
        prompt_id = str(body.get("prompt_id", uuid.uuid4())) if can.own_prompt_id else str(uuid.uuid4())
        targets = body.get("partial_execution_targets") if can.partial_execution else None
        verdict = validate_prompt(prompt, self._server.nodes, self._server, targets)
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if verdict.error is not None:
            return 400, {"error": verdict.error, "node_errors": verdict.node_errors}
        outputs = list(self._server.output_order(verdict.outputs))
        record = PromptRecord(prompt_id, number, extra_data.get("client_id"), prompt, extra_data, body)
        self._server.prompts.append(record)
        self._server.queue.put((number, prompt_id, prompt, extra_data, outputs))
        return 200, {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}

    def take_from_socket(self, client_id: str, body: Any) -> tuple[str, dict[str, Any]]:
        """The fork's way in: the prompt belongs to the socket that it came over; gives the answer's type and data."""
        status, answer = self.take({**body, "client_id": client_id})
        return ("prompt_queued" if status == 200 else "error"), answer

    def _replaced(self, prompt: Any) -> Any:
        """The prompt with other nodes in place of those that newer versions replace."""
        own = self._server.replaced_nodes
        if not own or not isinstance(prompt, dict):
            return prompt
        return {
            node_id: {**node, "class_type": own.get(node.get("class_type"), node.get("class_type"))}
            for node_id, node in prompt.items()
        }

    def _number_for(self, body: Any) -> float:
        if "number" in body:
            return float(body["number"])
        number = self._server.next_number
        self._server.next_number += 1
        return -number if isinstance(body, dict) and body.get("front") else number

    def _no_prompt(self) -> dict[str, Any]:
        if not self._server.capabilities.typed_no_prompt:
            return {"error": "no prompt", "node_errors": []}
        words = "No prompt provided"
        error = {"type": "no_prompt", "message": words, "details": words, "extra_info": {}}
        return {"error": error, "node_errors": {}}

    async def get_queue(self, request: web.Request) -> web.Response:
        """What runs and what waits; the waiting ones in the order of the heap, not of running."""
        del request
        queue = self._server.queue
        return web.json_response({"queue_running": queue.running, "queue_pending": queue.pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        """Clear the queue, or delete waiting prompts."""
        body = await request.json()
        if body.get("clear"):
            self._server.queue.clear()
        for prompt_id in body.get("delete", ()):
            self._server.queue.delete(prompt_id)
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        """Entries, oldest first."""
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", -1))
        return web.json_response(self._server.queue.listed(None if max_items is None else int(max_items), offset))

    async def post_history(self, request: web.Request) -> web.Response:
        """Clear the history, or delete entries."""
        body = await request.json()
        if body.get("clear"):
            self._server.queue.history.clear()
        for prompt_id in body.get("delete", ()):
            self._server.queue.history.pop(prompt_id, None)
        return web.Response()

    async def get_history_entry(self, request: web.Request) -> web.Response:
        """One entry, or ``{}`` for everything that has none."""
        prompt_id = request.match_info["prompt_id"]
        entry = self._server.queue.history.get(prompt_id)
        if entry is None or self._comes_late(prompt_id):
            return web.json_response({})
        return web.json_response({prompt_id: entry})

    def _comes_late(self, prompt_id: str) -> bool:
        reads = self._late_reads.get(prompt_id, 0)
        self._late_reads[prompt_id] = reads + 1
        faults = self._server.faults
        return faults.history_never or reads < faults.history_late_by

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """Interrupt what runs, or what runs if it has the given id. The answer is 200 whatever happens."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        known = isinstance(body, dict) and self._server.capabilities.interrupt_by_id
        prompt_id = body.get("prompt_id") if known else None
        running = {item[1] for item in self._server.queue.running}
        if self._server.lose_interrupt():
            effective = False
        else:
            effective = bool(running) if not prompt_id else prompt_id in running
            if effective or not prompt_id:
                self._server.interrupts_flag.requested = True
        self._server.interrupts.append(InterruptRecord(prompt_id, effective))
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        """Drop the cache, at once or when the running prompt has ended."""
        body = await request.json()
        if body.get("free_memory"):
            self._server.forget_cache()
        return web.Response()
