"""Makes the requests of a recording against the fake server and compares what comes back."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import anyio
import attrs
from emp_comfyui.testing import FakeComfyUI, png
from emp_comfyui.testing.recording import Recording, renamed

from .sameness import Sameness, are_tensors, is_earlier, shape, stripped

_BARRIER = b"nothing before this?"


def _is_barrier(message: aiohttp.WSMessage) -> bool:
    return message.type is aiohttp.WSMsgType.PONG and bytes(message.data) == _BARRIER


class SteppedTime:
    """Time that stands still until somebody lets the next sleeper go on."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._count = 0

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        wake = anyio.Event()
        self._count += 1
        self._sleepers.append((self._now + seconds, self._count, wake))
        await wake.wait()

    def advance(self) -> bool:
        """Wake the sleepers that are due first; False if nobody sleeps."""
        if not self._sleepers:
            return False
        self._now = min(self._sleepers)[0]
        for sleeper in sorted(self._sleepers):
            if sleeper[0] <= self._now + 1e-9:
                self._sleepers.remove(sleeper)
                sleeper[2].set()
        return True


@attrs.define(eq=False)
class SocketClient:
    socket: aiohttp.ClientWebSocketResponse
    reconnected: bool = False
    kept: list[aiohttp.WSMessage] = attrs.field(factory=list)


class RecordedSession:
    """One run through a recording. ``differences`` collects what was not as recorded."""

    def __init__(self, recording: Recording, *, sampled: bool = False, patience_s: float = 2.0) -> None:
        """``sampled``: only some of many runs were kept, so numbers of prompts and files, and moments, are chance.

        ``patience_s`` is how long a frame is waited for when nothing is left that could cause it.
        """
        self.recording = recording
        self.same = Sameness(sampled)
        self._patience_s = patience_s
        self.time = SteppedTime()
        self.clients: dict[str, SocketClient] = {}
        self.differences: list[str] = []
        self.compared = 0
        self._orders: list[list[str]] = []
        self._seen_client_ids: set[str | None] = set()

    async def run(self, before: Callable[[FakeComfyUI], None] | None = None) -> None:
        models: dict[str, list[str]] = {}
        server = FakeComfyUI(sleep=self.time.sleep, models=models, output_order=self._as_recorded)
        async with server, aiohttp.ClientSession(headers={"User-Agent": "test"}, auto_decompress=False) as session:
            if before is not None:
                before(server)
            self.server, self.session = server, session
            for place, event in enumerate(self.recording.events):
                await self._step(place, event)

    def _as_recorded(self, outputs: Any) -> list[str]:
        """The order of outputs of the prompt that is being posted, which differs from process to process."""
        order = self._orders[-1]
        return [each for each in order if each in outputs] if set(order) == set(outputs) else list(outputs)

    async def _step(self, place: int, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "ws_open":
                await self._open(place, event)
            case "ws_refused":
                await self._refused(place, event)
            case "ws_send":
                await self._send(place, event)
            case "ws_recv":
                await self._receive(place, event)
            case "ws_closed":
                await self._closed(place, event)
            case "http":
                await self._request(place, event)
            case "note":
                await self._note(event["text"])

    def _differs(self, place: int, what: str, recorded: Any, got: Any) -> None:
        self.differences.append(f"event {place}, {what}:\n  recorded {recorded!r}\n  got      {got!r}")

    # Sockets.

    async def _open(self, place: int, event: Mapping[str, Any]) -> None:
        await self._catch_up(place, event["client"])
        query = event["request"].get("query") or {}
        url = self.server.url + event["request"]["path"]
        extensions = (event.get("response_headers") or {}).get("Sec-WebSocket-Extensions")
        socket = await self.session.ws_connect(url, params=query, compress=15 if extensions else 0, autoping=False)
        client_id = query.get("clientId")
        self.clients[event["client"]] = SocketClient(socket, client_id in self._seen_client_ids)
        self._seen_client_ids.add(client_id)

    async def _catch_up(self, place: int, client: str) -> None:
        """Let the fake come to where the recorded server was when this socket was opened."""
        greeting = [
            each for each in self.recording.events[place:] if each["kind"] == "ws_recv" and each["client"] == client
        ]
        if not greeting or not greeting[0].get("json"):
            return
        remaining = greeting[0]["json"]["data"]["status"]["exec_info"]["queue_remaining"]
        await self._let_pass(lambda: self.server.queue.remaining() == remaining)
        if len(greeting) > 1 and greeting[1].get("json", {}).get("type") == "executing":
            node = greeting[1]["json"]["data"]["node"]
            await self._let_pass(lambda: self.server.hub.current_node_id == node)

    async def _let_pass(self, met: Callable[[], bool]) -> None:
        while not met():
            await self._settle()
            if met() or not self.time.advance():
                return

    async def _settle(self) -> None:
        """Until the fake has nothing left to do but to let time pass."""
        for _ in range(6):
            await anyio.lowlevel.checkpoint()
        for _ in range(100):  # a client that does not read keeps it busy for ever
            if self.server.hub.idle:
                return
            await anyio.lowlevel.checkpoint()

    async def _refused(self, place: int, event: Mapping[str, Any]) -> None:
        try:
            await self.session.ws_connect(
                self.server.url + "/ws", params=event["request"]["query"], headers=event["request"]["headers"]
            )
        except aiohttp.WSServerHandshakeError as refusal:
            self.compared += 1
            if refusal.status != event["status"]:
                self._differs(place, "refusal of a socket", event["status"], refusal.status)
        else:
            self._differs(place, "refusal of a socket", event["status"], 101)

    async def _send(self, place: int, event: Mapping[str, Any]) -> None:
        if event["opcode"] == "close":
            return
        if event["client"] not in self.clients:
            url = f"{self.server.url}/ws?clientId=probe"
            self.clients[event["client"]] = SocketClient(await self.session.ws_connect(url, autoping=False))
            await self.clients[event["client"]].socket.receive(timeout=5)
        socket = self.clients[event["client"]].socket
        if event["opcode"] == "ping":
            await socket.ping(event["text"].encode())
        elif event.get("cut"):
            await socket.send_str("x" * event["bytes"])
        else:
            await socket.send_str(event["text"] if "text" in event else json.dumps(event["json"]))

    async def _receive(self, place: int, event: Mapping[str, Any]) -> None:
        client = self.clients[event["client"]]
        recorded = self.same.frame(event)
        while True:
            try:
                message = await self._next_frame(client)
            except TimeoutError:
                self._differs(place, f"frame for {event['client']}", recorded, "nothing")
                return
            got = self.same.message(message)
            if event["opcode"] == "text" and message.type is aiohttp.WSMsgType.TEXT:
                self.same.learn(json.dumps(event["json"]), message.data)
            if got == recorded or not (client.reconnected and is_earlier(got, recorded)):
                break
        self.compared += 1
        if got != recorded:
            self._differs(place, f"frame for {event['client']}", recorded, got)

    async def _next_frame(self, client: SocketClient) -> aiohttp.WSMessage:
        """The client's next frame; time passes only while there is none.

        A ping that is answered before anything else shows that no frame is on its way.
        """
        while True:
            if client.kept:
                return client.kept.pop(0)
            await self._settle()
            await client.socket.ping(_BARRIER)
            message = await client.socket.receive(timeout=5)
            if not _is_barrier(message):
                await self._take_barrier(client)
                return message
            if not self.time.advance():
                return await client.socket.receive(timeout=self._patience_s)

    async def _take_barrier(self, client: SocketClient) -> None:
        """Keep what comes before the answered ping for later."""
        while not client.socket.closed:
            message = await client.socket.receive(timeout=5)
            if _is_barrier(message):
                return
            client.kept.append(message)

    async def _closed(self, place: int, event: Mapping[str, Any]) -> None:
        client = self.clients.pop(event["client"])
        if event["how"] == "own close":
            known = len(self.server.hub.all_open)
            await client.socket.close()
            await self.server.until(lambda: len(self.server.hub.all_open) < known)
            return
        while not client.socket.closed:
            message = await client.socket.receive(timeout=5)
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                break
        self.compared += 1
        if client.socket.close_code != event["close_code"]:
            self._differs(place, "close code", event["close_code"], client.socket.close_code)

    async def _note(self, text: str) -> None:
        if text in ("kill -9", "SIGTERM", "SIGINT"):
            await self.server.kill()
        elif text.startswith("The server has been started again"):
            await self.server.restart()
        elif text.startswith("All cached_* files"):
            for path in self.server.folders.path("output").glob("cached_*"):
                path.unlink()
        elif "A has had 0 frames since" in text:
            await self._hears_nothing("A")
        elif text == "The connection of 'stuck' is dropped.":
            self.server.drop_sockets("stuck")

    async def _hears_nothing(self, client: str) -> None:
        self.compared += 1
        try:
            message = await self.clients[client].socket.receive(timeout=0.05)
        except TimeoutError:
            return
        self.differences.append(f"{client} should hear nothing, and got {message!r}")

    # Requests.

    async def _request(self, place: int, event: Mapping[str, Any]) -> None:
        request = event["request"]
        if "failed" in event:
            await self._failing(place, request)
            return
        path = self.same.outgoing(request["path"])
        await self._wait_for_state(place, path)
        if path == "/interrupt" and self._was_lost(place):
            self.server.faults = attrs.evolve(self.server.faults, lost_interrupts=1)
        if request["method"] == "POST" and path.endswith("/prompt"):
            self._orders.append(self._recorded_order(place))
        headers = self._own_host(request.get("headers") or {})
        params = {key: self.same.outgoing(value) for key, value in (request.get("query") or {}).items()}
        url = _address(self.server.url, path, params)
        async with self.session.request(
            request["method"], url, headers=headers, data=self._body(request.get("body"))
        ) as response:
            raw = await response.read()
        answer = self.recording.answered_json(place)
        if isinstance(answer, dict) and "prompt_id" in answer and response.status == 200:
            self.same.names[answer["prompt_id"]] = json.loads(raw)["prompt_id"]
        self._compare_answer(place, response, raw)

    async def _failing(self, place: int, request: Mapping[str, Any]) -> None:
        try:
            async with self.session.request(request["method"], self.server.url + request["path"]) as response:
                self._differs(place, "refused connection", "no answer", response.status)
        except aiohttp.ClientConnectionError:
            self.compared += 1

    async def _wait_for_state(self, place: int, path: str) -> None:
        """Let the fake come to where the recorded server was when it was asked for its state."""
        answer = self.recording.answered_json(place)
        if not isinstance(answer, dict):
            return
        if "/history/" in path and answer:
            await self._let_pass(lambda: path.rpartition("/history/")[2] in self.server.history or "%" in path)
        elif "queue_running" in answer:
            remaining = len(answer["queue_running"]) + len(answer["queue_pending"])
            await self._let_pass(lambda: self.server.queue.remaining() == remaining)

    def _was_lost(self, place: int) -> bool:
        """Whether the recorded server took this interrupt before the prompt's start and so forgot it."""
        following = [event.get("json") or {} for event in self.recording.events[place:] if event["kind"] == "ws_recv"]
        started = [frame.get("type") for frame in following[:3]]
        kinds = [frame.get("type") for frame in following]
        ended = next((kind for kind in kinds if kind in ("execution_success", "execution_interrupted")), None)
        return "execution_start" in started and ended == "execution_success"

    def _recorded_order(self, place: int) -> list[str]:
        """The outputs of a prompt in the order in which the recorded server took them."""
        answer = self.recording.answered_json(place)
        prompt_id = answer.get("prompt_id") if isinstance(answer, dict) else None
        text = json.dumps(prompt_id)
        for event in self.recording.events[place:]:
            body = ((event.get("response") or {}).get("body") or {}).get("json")
            if isinstance(body, dict) and isinstance(body.get(prompt_id), dict):
                return list(body[prompt_id]["prompt"][4])
            if isinstance(body, dict) and text in json.dumps(body.get("queue_running", [])):
                return next(list(item[4]) for item in body["queue_running"] if item[1] == prompt_id)
        return []

    def _body(self, body: Mapping[str, Any] | None) -> Any:
        if body is not None and body["kind"] == "json":
            return json.dumps(renamed(body["json"], self.same.names))
        return _sent(body)

    def _own_host(self, headers: Mapping[str, str]) -> dict[str, str]:
        own = f"127.0.0.1:{self.server.port}"
        return {key: value.replace("127.0.0.1:8199", own) for key, value in headers.items()}

    def _compare_answer(self, place: int, response: aiohttp.ClientResponse, raw: bytes) -> None:
        self.compared += 1
        recorded = self.recording.events[place]["response"]
        kinds = recorded["headers"].get("Content-Type"), response.headers.get("Content-Type")
        if (recorded["status"], kinds[0]) != (response.status, kinds[1]):
            self._differs(place, "answer", (recorded["status"], kinds[0]), (response.status, kinds[1], raw[:300]))
            return
        for header in ("Content-Disposition", "Accept-Ranges", "Allow"):
            expected, got = (stripped(each.get(header)) for each in (recorded["headers"], response.headers))
            if expected != got:
                self._differs(place, header, expected, got)
        body = recorded.get("body") or {"kind": "empty"}
        if self.same.sampled and self.recording.events[place]["request"]["method"] == "GET":
            return
        if body["kind"] == "json":
            path = self.recording.events[place]["request"]["path"]
            expected, got = self.same.value(body["json"]), self.same.value(json.loads(raw))
            if path.endswith(("/system_stats", "/experiment/models")):
                expected, got = shape(expected), shape(got)
            if expected != got:
                self._differs(place, "body", expected, got)
        elif body["kind"] == "binary":
            self._compare_bytes(place, base64.b64decode(body["base64"]), raw)
        elif raw.decode() != body.get("text", ""):
            self._differs(place, "text", body.get("text"), raw[:200])

    def _compare_bytes(self, place: int, recorded: bytes, got: bytes) -> None:
        if recorded.startswith(png.SIGNATURE) and len(recorded) > 32 and got.startswith(png.SIGNATURE):
            if png.size(recorded) != png.size(got) or png.texts(recorded) != png.texts(got):
                self._differs(
                    place, "picture", (png.size(recorded), png.texts(recorded)), (png.size(got), png.texts(got))
                )
        elif recorded[:3] != got[:3] and not are_tensors(recorded, got):
            self._differs(place, "file", recorded[:12], got[:12])


def _address(base: str, path: str, params: dict[str, str]) -> Any:
    import yarl

    quoted = path if "%" in path or ".." in path else path.replace(" ", "%20")
    url = yarl.URL(base + quoted, encoded=True)
    return url.update_query(params) if params else url


def _sent(body: Mapping[str, Any] | None) -> Any:
    if body is None or body["kind"] == "empty":
        return None
    if body["kind"] == "text":
        return body["text"]
    form = aiohttp.FormData(quote_fields=False)
    for part in body["parts"]:
        if "value" in part:
            form.add_field(part["name"], part["value"])
        else:
            data = base64.b64decode(part.get("base64", ""))
            form.add_field(part["name"], data, filename=part["filename"], content_type=part["content_type"])
    return form
