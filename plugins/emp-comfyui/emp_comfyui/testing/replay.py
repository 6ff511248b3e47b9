"""A server that replays to a client under test what a real ComfyUI server once said.

Rules, for a scenario as recorded (see :class:`emp_comfyui.testing.recording.Recording`):

1. **The timeline.** The player goes through the events from the recorded socket on which the chosen prompt was watched.
   Recorded frames for that socket are sent in recorded order, as fast as they are taken (or at the recorded pace times
   ``pace``). Frames for a client that is not connected are lost, as they were for the real one.
2. **Gates.** The player stops before a recorded request of the replayed client that changes something, until the client
   under test makes a request of that kind: ``POST /prompt``, ``POST /interrupt``, ``POST /queue``. Kinds in ``open_gates``
   do not stop it. Requests of other recorded clients never do.
3. **Which prompts are the client's.** The chosen one (``post``), and after its end every further one that the same recorded
   client posted, one after the other. Prompts that were posted while a chosen one still ran pass by themselves.
4. **Names.** The client's own ``clientId`` and ``prompt_id`` take the place of the recorded ones in every answer and frame:
   whole strings and keys in JSON, and the metadata of binary frames; all other bytes are as recorded. A client that brings
   no ``prompt_id`` gets the recorded one. Node ids are never changed: submit :attr:`ReplayServer.graph`.
5. **State.** ``GET /history/{id}``, ``/history``, ``/queue`` and ``/prompt`` are answered by where the timeline is: a history
   entry exists from the recorded end of its prompt on.
6. **Files.** ``GET /view`` gives the recorded bytes and status if the same file was asked for in the recording, else bytes
   of the right kind, made here. Uploads get the recorded answers in their order, else one made of the request.
7. **Lost sockets.** Where the recorded client closed its socket and came back under its id, or the server died, the socket
   is cut without a close frame. The player then waits for the client to connect again, and what came in between is lost to it.
   After a death ``/history`` and ``/queue`` know nothing of what was before.
8. Everything else (``/object_info``, ``/system_stats``, ``/features`` ...) gets the recorded answer if there is one, else the
   fake server's, else 404. A ``POST /prompt`` for which the recording has nothing left gets a 503 that says so.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import attrs
from aiohttp import web

from emp_comfyui.testing.folders import Folders
from emp_comfyui.testing.recording import Recording, renamed, route
from emp_comfyui.testing.records import RequestRecord
from emp_comfyui.testing.replay_player import GATES, Player
from emp_comfyui.testing.sample_files import sample_file
from emp_comfyui.testing.stock_nodes import stock_nodes

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup


@attrs.frozen
class _Shelf:
    """What ``/object_info`` needs to know where it was not recorded."""

    models: Mapping[str, list[str]]
    folders: Folders


class ReplayServer:
    """Serves one recorded scenario; an async context manager. The rules are in the docstring of the module.

    Args:
        recording: A recording file, its parsed content, or a :class:`Recording`.
        post: Which recorded ``POST /prompt`` the client's first one stands for: its number among all of them, counted from 0,
            or its note. By default the first one that was answered with 200 and belongs to a recorded socket.
        open_gates: Paths of gates that do not stop the player, such as ``/interrupt``.
        pace: Factor for the recorded time between frames; 0 sends them as fast as they are taken.
        models: Model files by folder, for ``/object_info`` where it was not recorded.
    """

    def __init__(
        self,
        recording: Recording | Mapping[str, Any] | Path | str,
        *,
        post: int | str | None = None,
        open_gates: Collection[str] = (),
        pace: float = 0.0,
        models: Mapping[str, list[str]] | None = None,
    ) -> None:
        """Prepare; nothing listens yet."""
        self.recording = recording if isinstance(recording, Recording) else Recording.load(recording)
        self.requests: list[RequestRecord] = []
        self.host, self.port = "127.0.0.1", 0
        self._first = self._chosen(post)
        self._player = Player(self.recording, self._first, open_gates, pace)
        self._played_uploads = 0
        self._root = Path(tempfile.mkdtemp(prefix="comfyui-replay-"))
        self._shelf = _Shelf(models or {}, Folders(self._root))
        self._tasks: TaskGroup | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def names(self) -> Mapping[str, str]:
        """Recorded ids, and what the client under test has in their place."""
        return self._player.names

    @property
    def finished(self) -> anyio.Event:
        """Set when the timeline has been played to its end."""
        return self._player.finished

    @property
    def graph(self) -> dict[str, Any]:
        """The graph of the chosen prompt, for the client under test to submit."""
        graph: dict[str, Any] = self.recording.sent_json(self._first)["prompt"]
        return graph

    async def __aenter__(self) -> Self:
        """Listen, and begin to play."""
        app = web.Application(client_max_size=100 * 1024 * 1024)
        app.add_routes([web.route("*", "/{path:.*}", self._handle)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        listening = socket.socket()
        listening.bind((self.host, 0))
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._player.play)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Stop."""
        assert self._tasks is not None  # noqa: S101 - entered before
        assert self._runner is not None  # noqa: S101 - entered before
        self._tasks.cancel_scope.cancel()
        self._player.cut()
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self._runner.cleanup()
        shutil.rmtree(self._root, ignore_errors=True)
        if kind is None or not issubclass(kind, Exception):
            return await self._tasks.__aexit__(kind, error, trace)
        # An error of the caller's own leaves as it is, not as a group of one.
        await self._tasks.__aexit__(None, None, None)
        return None

    def _chosen(self, post: int | str | None) -> int:
        posts = self.recording.posts()
        if isinstance(post, int):
            return posts[post]
        for place in posts:
            client_id = self.recording.client_id_of(place)
            wanted = (
                self.recording.events[place].get("note") == post
                if post is not None
                else (self.recording.status(place) == 200 and client_id and self.recording.sockets_of(client_id))
            )
            if wanted:
                return place
        raise ValueError(f"recording {self.recording.scenario} has no POST /prompt to replay (post={post!r})")

    # What the client asks for.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = route(request.path)
        if path == "/ws":
            return await self._serve_socket(request)
        response = await self._answer(request, path)
        self.requests.append(RequestRecord(request.method, path, dict(request.query), response.status))
        return response

    async def _serve_socket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self._player.take_socket(ws, request.transport, request.query.get("clientId"))
        async for _ in ws:
            pass
        self._player.lose_socket(ws)
        return ws

    async def _answer(self, request: web.Request, path: str) -> web.StreamResponse:
        if request.method == "POST" and path in GATES:
            return await self._answer_gate(request, path)
        if request.method == "POST" and path.startswith("/upload/"):
            return await self._answer_upload(request)
        if request.method == "POST":
            return web.Response()
        if path == "/view":
            return self._answer_view(request)
        if path in ("/history", "/queue", "/prompt") or path.startswith("/history/"):
            return web.json_response(renamed(self._state(path, request.match_info["path"]), self.names))
        return self._answer_other(path)

    async def _answer_gate(self, request: web.Request, path: str) -> web.StreamResponse:
        try:
            body = json.loads(await request.read() or b"null")
        except json.JSONDecodeError:
            body = None
        arrival = self._player.arrive(path, body)
        if arrival is None:
            text = "The recording has no further POST /prompt: everything in it was played."
            return web.Response(status=503, text=text) if path == "/prompt" else web.Response()
        await arrival.decided.wait()
        response = web.Response() if arrival.post is None else self._recorded_answer(arrival.post)
        # The answer goes out before the player goes on: in the recordings it always came before the first frame.
        await response.prepare(request)
        await response.write_eof()
        arrival.answered.set()
        return response

    def _recorded_answer(self, place: int) -> web.Response:
        recorded = self.recording.events[place]["response"]
        body = recorded.get("body") or {"kind": "empty"}
        kind = recorded.get("headers", {}).get("Content-Type", "").partition(";")[0] or None
        match body["kind"]:
            case "json":
                text = json.dumps(renamed(body["json"], self.names))
                return web.Response(status=recorded["status"], text=text, content_type=kind)
            case "text":
                return web.Response(status=recorded["status"], text=body["text"], content_type=kind)
            case "binary" if body.get("base64"):
                return web.Response(status=recorded["status"], body=base64.b64decode(body["base64"]), content_type=kind)
            case _:
                return web.Response(status=recorded["status"])

    async def _answer_upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        recorded = [place for place in range(len(self.recording.events)) if self._is_upload(place)]
        if self._played_uploads < len(recorded):
            self._played_uploads += 1
            return self._recorded_answer(recorded[self._played_uploads - 1])
        image = form.get("image")
        name = image.filename if isinstance(image, web.FileField) else "upload"
        answer = {"name": name, "subfolder": str(form.get("subfolder", "")), "type": str(form.get("type", "input"))}
        return web.json_response(answer)

    def _is_upload(self, place: int) -> bool:
        uploads = ("/upload/image", "/upload/mask")
        return any(self.recording.is_request(place, "POST", path) for path in uploads)

    def _answer_view(self, request: web.Request) -> web.Response:
        wanted = dict(request.query)
        matching = [
            place
            for place in range(len(self.recording.events))
            if self.recording.is_request(place, "GET", "/view")
            and self.recording.events[place]["request"].get("query") == wanted
        ]
        matching.sort(key=lambda place: place < self._first)  # what was asked after the chosen prompt goes first
        for place in matching:
            body = self.recording.events[place]["response"].get("body") or {}
            if self.recording.status(place) != 200 or body.get("base64"):
                return self._recorded_answer(place)
        data, kind = sample_file(wanted.get("filename", ""))
        headers = {"Content-Disposition": f'filename="{wanted.get("filename", "")}"'}
        return web.Response(body=data, content_type=kind, headers=headers)

    def _answer_other(self, path: str) -> web.Response:
        for place in range(len(self.recording.events)):
            if self.recording.is_request(place, "GET", path):
                return self._recorded_answer(place)
        if path == "/object_info" or path.startswith("/object_info/"):
            name = path.removeprefix("/object_info").strip("/")
            classes = [each for each in stock_nodes() if name in ("", each.name)]
            return web.json_response({each.name: each.object_info(self._shelf) for each in classes})
        known = {
            "/system_stats": {"system": {"comfyui_version": "0.3.64", "os": "posix"}, "devices": []},
            "/features": {"supports_preview_metadata": True, "max_upload_size": 104857600},
        }
        return web.json_response(known[path]) if path in known else web.Response(status=404)

    def _state(self, path: str, full: str) -> Any:
        back = {own: recorded for recorded, own in self.names.items()}
        ended, waiting, running = self._player.prompts_now()
        if path == "/prompt":
            return {"exec_info": {"queue_remaining": len(waiting) + len(running)}}
        if path == "/queue":
            return {"queue_running": running, "queue_pending": waiting}
        if path == "/history":
            return ended
        wanted = full.rpartition("history/")[2]
        recorded = back.get(wanted, wanted)
        return {recorded: ended[recorded]} if recorded in ended else {}
