"""The web sockets of the fake server's clients, and the one queue through which all frames go.

One publisher sends frame after frame and waits for each: so every client sees its frames in order, and one that does not
read holds up all others, as with the real server. Sockets are known by clientId alone: a second one under the same id takes
the frames over, and when the first one closes the second is forgotten with it.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from aiohttp import WSMsgType, web

from emp_comfyui.testing import binary_frames
from emp_comfyui.testing.bell import Bell
from emp_comfyui.testing.versions import Capabilities


@attrs.define(eq=False)
class Client:
    """One connected socket."""

    sid: str
    socket: web.WebSocketResponse = attrs.field(repr=False)
    transport: asyncio.Transport | None = attrs.field(default=None, repr=False)
    flags: dict[str, Any] = attrs.field(factory=dict)
    received: list[str] = attrs.field(factory=list)
    """Text frames that the client has sent, in order."""


@attrs.frozen
class Preview:
    """An image on its way: packed for each client as it can take it."""

    image: bytes = attrs.field(repr=False)
    image_type: str
    metadata: Mapping[str, Any] | None


@attrs.frozen
class Outgoing:
    """A frame in the queue: text (``kind`` and ``data``), ready bytes, or a preview. ``sid`` None: to everybody."""

    sid: str | None
    kind: str
    data: Mapping[str, Any] | bytes | Preview


class SocketHub:
    """All sockets, and the queue of frames for them."""

    def __init__(
        self,
        capabilities: Capabilities,
        max_upload_size: int,
        allowed: Callable[[str], bool],
        on_change: Callable[[], None],
        take_prompt: Callable[[str, Any], tuple[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        """``allowed`` decides by frame type whether a frame is sent; ``on_change`` is called after each change.

        ``take_prompt`` is the fork's way: it takes a prompt of a client that came over its socket, and gives the type and the
        data of the answer.
        """
        self.clients: dict[str, Client] = {}
        self.all_open: list[Client] = []
        self.current_client_id: str | None = None
        self.current_node_id: str | None = None
        self._capabilities = capabilities
        self._max_upload_size = max_upload_size
        self._allowed = allowed
        self._on_change = on_change
        self._take_prompt = take_prompt
        self._queue: list[Outgoing] = []
        self._filled = Bell()
        self._sending = False

    @property
    def idle(self) -> bool:
        """Whether every frame has been handed to its sockets."""
        return not self._queue and not self._sending

    def announce(self, kind: str, data: Mapping[str, Any], sid: str | None) -> None:
        """Queue a text frame for one client, or for everybody."""
        self._push(Outgoing(sid, kind, data))

    def announce_bytes(self, frame: bytes, sid: str | None) -> None:
        """Queue a packed binary frame."""
        self._push(Outgoing(sid, binary_frames.NAMES.get(binary_frames.event_type(frame), "BINARY"), frame))

    def announce_preview(self, preview: Preview, sid: str | None) -> None:
        """Queue an image."""
        kind = binary_frames.PREVIEW_IMAGE if preview.metadata is None else binary_frames.PREVIEW_IMAGE_WITH_METADATA
        self._push(Outgoing(sid, binary_frames.NAMES[kind], preview))

    def takes_metadata(self, sid: str | None) -> bool:
        """Whether that client has agreed on previews with metadata."""
        client = self.clients.get(sid) if sid is not None else None
        return client is not None and client.flags.get("supports_preview_metadata") is True

    async def publish(self) -> None:
        """Send queued frames for ever."""
        while True:
            while self._queue:
                self._sending = True
                frame = self._queue.pop(0)
                await self._send(frame)
                self._sending = False
                self._on_change()
            await self._filled.wait()

    async def serve(self, request: web.Request, status: Mapping[str, Any]) -> web.WebSocketResponse:
        """Take a socket and keep it until it ends."""
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        asked_for = request.query.get("clientId", "") if self._take_prompt is None else ""
        sid = asked_for or uuid.uuid4().hex
        client = Client(sid, socket, request.transport)
        self.clients[sid] = client
        self.all_open.append(client)
        self._on_change()
        try:
            await self._greet(client, status)
            await self._listen(client)
        finally:
            # By the id, whoever has it now: this is what silences a newer socket under the same id.
            self.clients.pop(sid, None)
            self.all_open.remove(client)
            self._on_change()
        return socket

    async def _greet(self, client: Client, status: Mapping[str, Any]) -> None:
        if self._take_prompt is not None:
            await self._direct(client, "client_id", {"client_id": client.sid})
        await self._direct(client, "status", {"status": dict(status), "sid": client.sid})
        if self.current_client_id == client.sid and self.current_node_id is not None:
            await self._direct(client, "executing", {"node": self.current_node_id})

    async def _listen(self, client: Client) -> None:
        first = True
        async for message in client.socket:
            if message.type is not WSMsgType.TEXT:
                continue
            client.received.append(message.data)
            self._on_change()
            try:
                parsed = json.loads(message.data)
            except json.JSONDecodeError:
                continue
            if not isinstance(parsed, dict):
                continue
            if first and parsed.get("type") == "feature_flags" and self._capabilities.feature_flags:
                flags = parsed.get("data")
                client.flags = flags if isinstance(flags, dict) else {}
                await self._direct(client, "feature_flags", self.own_flags())
            first = False
            if self._take_prompt is not None:
                await self._answer(client, parsed)

    async def _answer(self, client: Client, message: Mapping[str, Any]) -> None:
        """What the fork answers to messages that the stock server does not know."""
        match message:
            case {"type": "ping"}:
                await _deliver(client, json.dumps({"type": "pong"}))
            case {"type": "prompt"} if self._take_prompt is not None:
                with contextlib.suppress(Exception):  # the fork, too, says nothing when a prompt breaks it
                    await self._direct(client, *self._take_prompt(client.sid, message.get("data", {})))

    def own_flags(self) -> dict[str, Any]:
        """The server's own feature flags."""
        return {"supports_preview_metadata": True, "max_upload_size": self._max_upload_size}

    async def _direct(self, client: Client, kind: str, data: Mapping[str, Any]) -> None:
        """Send at once, past the queue."""
        if self._allowed(kind):
            await _deliver(client, json.dumps({"type": kind, "data": data}))

    def _push(self, frame: Outgoing) -> None:
        self._queue.append(frame)
        self._filled.ring()

    async def _send(self, frame: Outgoing) -> None:
        if not self._allowed(frame.kind):
            return
        if frame.sid is None:
            receivers = list(self.clients.values())
        else:
            receivers = [client for client in (self.clients.get(frame.sid),) if client is not None]
        for client in receivers:
            await _deliver(client, _packed(frame))


def _packed(frame: Outgoing) -> str | bytes:
    match frame.data:
        case bytes():
            return frame.data
        case Preview(image, image_type, None):
            return binary_frames.preview(image, image_type)
        case Preview(image, image_type, metadata):
            assert metadata is not None  # noqa: S101 - the case above took None
            return binary_frames.preview_with_metadata(image, image_type, metadata)
        case data:
            return json.dumps({"type": frame.kind, "data": data})


async def _deliver(client: Client, payload: str | bytes) -> None:
    try:
        if isinstance(payload, str):
            await client.socket.send_str(payload)
        else:
            await client.socket.send_bytes(payload)
    except ConnectionError:
        return  # the client has gone; its own handler notices and cleans up
