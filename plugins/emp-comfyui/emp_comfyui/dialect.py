"""How a prompt is handed over: by ``POST /prompt``, as every ComfyUI takes it, or over the web socket, as a fork of it does.

Source of the fork's ways: it ignores the ``clientId`` of the socket's address and greets with
``{"type": "client_id", "data": {"client_id"}}``; it takes ``{"type": "prompt", "data": {"prompt", "extra_data"}}`` over the
socket and answers ``prompt_queued`` with ``prompt_id``, ``number`` and ``node_errors``, or ``error`` with what a 400 of
``POST /prompt`` holds. What breaks it while it reads a prompt it does not answer at all.
"""

import json
from collections.abc import Mapping
from typing import Any

import anyio

from emp_comfyui.client import Accepted
from emp_comfyui.errors import refusal
from emp_comfyui.frames import Message, decode
from emp_comfyui.workflow import Workflow
from emp_core.connectors.websocket import Frame, Gap, Socket
from emp_core.errors import ConnectionLost

__all__ = ["Handover", "own_client_id"]

_GREETING_S = 1.0


async def own_client_id(socket: Socket, client_id: str) -> str:
    """The id under which the server knows this socket: it tells in its first message. What it does not tell is ours."""
    with anyio.move_on_after(_GREETING_S):
        while socket.is_open:
            frame = await socket.receive()
            message = None if isinstance(frame, Gap) else decode(frame)
            match message:
                case Message("client_id", {"client_id": str(told)}) | Message("status", {"sid": str(told)}) if told:
                    return told
    return client_id


class Handover:
    """A prompt that is handed over the socket, and the frames that came before its answer.

    Attributes:
        early: frames that were not the answer, in order: they may be the prompt's own.
    """

    def __init__(self, socket: Socket) -> None:
        self.early: list[Frame] = []
        self._socket = socket

    async def hand_over(self, workflow: Workflow, *, client_id: str, answer_within_s: float) -> Accepted:
        """Send the prompt and wait for the answer.

        Raises:
            InvalidJob, MissingNode, MissingModel: the server refuses it; nothing was queued.
            ConnectionLost: no answer came.
        """
        extra_data = {**workflow.extra_data, "client_id": client_id}
        data: dict[str, Any] = {"prompt": workflow.graph, "client_id": client_id, "extra_data": extra_data}
        await self._socket.send(json.dumps({"type": "prompt", "data": data}))
        with anyio.move_on_after(answer_within_s):
            while True:
                frame = await self._socket.receive()
                if isinstance(frame, Gap):
                    raise ConnectionLost(
                        "the web socket was lost while a prompt was sent over it", details={"reason": "socket_lost"}
                    )
                answer = _answer(frame, workflow)
                if answer is not None:
                    return answer
                self.early.append(frame)
        raise ConnectionLost(
            "the ComfyUI server did not answer a prompt that was sent over the web socket",
            hint="its log says why; this kind of server answers nothing when it breaks on a workflow",
            details={"reason": "no_answer"},
        )


def _answer(frame: Frame, workflow: Workflow) -> Accepted | None:
    match decode(frame):
        case Message("prompt_queued", {"prompt_id": str(prompt_id), **rest}):
            return Accepted(prompt_id, rest.get("node_errors"))
        case Message("error", data):
            error = data.get("error")
            told = error if isinstance(error, Mapping) else {"message": data.get("message") or error}
            raise refusal({**data, "error": told}, workflow)
    return None
