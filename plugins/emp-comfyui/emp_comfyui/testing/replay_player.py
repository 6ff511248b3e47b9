"""The player of a recording: it goes through the timeline and sends frames; the rules stand in :mod:`.replay`."""

import asyncio
import json
from collections.abc import Collection
from typing import Any

import anyio
import attrs
from aiohttp import web

from emp_comfyui.testing.bell import Bell
from emp_comfyui.testing.recording import Recording, binary_frame, event_json, renamed, route

GATES = ("/prompt", "/interrupt", "/queue")
"""Requests (``POST``) of the replayed client for which the player waits."""


@attrs.define(eq=False)
class Arrival:
    """A request of the client under test that waits for the player.

    ``decided`` is set when it may be answered (``post``: as that recorded one was), ``answered`` when it was.
    """

    path: str
    body: Any
    answered: anyio.Event = attrs.field(factory=anyio.Event)
    decided: anyio.Event = attrs.field(factory=anyio.Event)
    post: int | None = None


class Player:
    """Where the timeline is, and what follows from it."""

    def __init__(self, recording: Recording, first: int, open_gates: Collection[str], pace: float) -> None:
        """``first``: the recorded ``POST /prompt`` for which the client's first one stands."""
        self.names: dict[str, str] = {}
        self.finished = anyio.Event()
        self._recording = recording
        self._first = first
        self._open_gates = frozenset(open_gates)
        self._pace = pace
        self._cursor = 0
        self._begun_at = first
        self._mine: list[int] = []
        self._arrivals: list[Arrival] = []
        self._arrived = Bell()
        self._socket: web.WebSocketResponse | None = None
        self._transport: asyncio.Transport | None = None

    def take_socket(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport | None, client_id: str | None
    ) -> None:
        """The client has connected: frames go to this socket from now on."""
        recorded = self._recording.client_id_of(self._first)
        if recorded is not None and client_id is not None:
            self.names[recorded] = client_id
        self._socket, self._transport = ws, transport
        self._arrived.ring()

    def lose_socket(self, ws: web.WebSocketResponse) -> None:
        """The client has gone."""
        if self._socket is ws:
            self._socket = self._transport = None

    def arrive(self, path: str, body: Any) -> Arrival | None:
        """A request for which the player may be waiting; None if nothing in the recording is left for it."""
        if not self._awaits(path):
            return None
        arrival = Arrival(path, body)
        self._arrivals.append(arrival)
        self._arrived.ring()
        return arrival

    def cut(self) -> None:
        """Cut the client's socket without a close frame."""
        self._socket = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def play(self) -> None:
        """Play the timeline to its end."""
        client_id = self._recording.client_id_of(self._first)
        openings = self._recording.sockets_of(client_id) if client_id is not None else []
        before = [place for place in openings if place < self._first]
        opening = before[-1] if before else None
        client = self._recording.events[opening]["client"] if opening is not None else None
        if opening is not None:
            self._cursor = opening
        later = iter([place for place in openings if opening is not None and place > opening])
        await self._play_on(client, client_id, list(later))
        self._cursor = len(self._recording.events)
        self.finished.set()

    async def _play_on(self, client: str | None, client_id: str | None, later: list[int]) -> None:
        skipping = True  # what the socket got before the chosen prompt, but for its greeting, is no concern of ours
        greeted = False
        while self._cursor < len(self._recording.events):
            place, event = self._cursor, self._recording.events[self._cursor]
            if place == self._first:
                skipping = False
            if event["kind"] == "ws_open" and client is not None and event["client"] == client:
                await self._connected()
            elif event["kind"] == "ws_recv" and event["client"] == client:
                if not skipping or not greeted or (event.get("json") or {}).get("type") == "feature_flags":
                    await self._keep_pace(place)
                    await self._send(place)
                greeted = True
            elif event["kind"] == "ws_closed" and event["client"] == client and (later or event["close_code"] == 1006):
                self.cut()
                if event["close_code"] == 1006:
                    self._begun_at = len(self._recording.events)  # the server forgot everything
                if later:
                    client = self._recording.events[later.pop(0)]["client"]
            elif not skipping and event["kind"] == "http":
                await self._pass_request(place, client_id)
            self._cursor = place + 1

    async def _pass_request(self, place: int, client_id: str | None) -> None:
        path = route(self._recording.events[place]["request"]["path"])
        if path not in GATES or not self._recording.is_request(place, "POST", path):
            return
        if path == "/prompt":
            await self._pass_post(place, client_id)
        elif path not in self._open_gates:
            await self._pass_gate(path)

    async def _pass_post(self, place: int, client_id: str | None) -> None:
        if self._begun_at == len(self._recording.events):
            self._begun_at = place
        others = self._recording.client_id_of(place) != client_id
        if place != self._first and (others or self._one_of_mine_runs(place) or "/prompt" in self._open_gates):
            return
        arrival = await self._next_arrival("/prompt")
        self._mine.append(place)
        arrival.post = place
        recorded = self._recording.prompt_id_of(place)
        own = arrival.body.get("prompt_id") if isinstance(arrival.body, dict) else None
        if recorded is not None and own is not None:
            self.names[recorded] = str(own)
        arrival.decided.set()
        await arrival.answered.wait()

    async def _pass_gate(self, path: str) -> None:
        """Wait for a request of this kind; a new prompt shows that none will come."""
        while not any(arrival.path in (path, "/prompt") for arrival in self._arrivals):
            await self._arrived.wait()
        if any(arrival.path == path for arrival in self._arrivals):
            arrival = await self._next_arrival(path)
            arrival.decided.set()
            await arrival.answered.wait()

    async def _next_arrival(self, path: str) -> Arrival:
        while True:
            for arrival in self._arrivals:
                if arrival.path == path:
                    self._arrivals.remove(arrival)
                    return arrival
            await self._arrived.wait()

    def _one_of_mine_runs(self, place: int) -> bool:
        ends = [self._end(post) for post in self._mine]
        return any(end is None or end > place for end in ends)

    def _end(self, post: int) -> int | None:
        prompt_id = self._recording.prompt_id_of(post)
        return post if prompt_id is None else self._recording.end_of(prompt_id, post)

    async def _keep_pace(self, place: int) -> None:
        if self._pace and place:
            events = self._recording.events
            await anyio.sleep(max(0.0, (events[place]["t"] - events[place - 1]["t"]) * self._pace))

    async def _connected(self) -> None:
        while self._socket is None:
            await self._arrived.wait()

    async def _send(self, place: int) -> None:
        if self._socket is None:
            return
        event = self._recording.events[place]
        try:
            if event["opcode"] == "text":
                await self._socket.send_str(json.dumps(renamed(event["json"], self.names)))
            elif (frame := binary_frame(event, self.names)) is not None:
                await self._socket.send_bytes(frame)
        except ConnectionError:
            self._socket = None  # the client has gone: frames for it are lost

    def _awaits(self, path: str) -> bool:
        """Whether the player will still stop for such a request."""
        places = range(self._cursor, len(self._recording.events))
        if path == "/prompt":
            return any(self._recording.is_request(place, "POST", path) for place in places)
        here = self._cursor < len(self._recording.events) and self._recording.is_request(self._cursor, "POST", path)
        return here and path not in self._open_gates

    def prompts_now(self) -> tuple[dict[str, Any], list[Any], list[Any]]:
        """Ended, waiting and running prompts at this point of the timeline."""
        ended: dict[str, Any] = {}
        waiting: list[Any] = []
        running: list[Any] = []
        for post in self._recording.posts():
            prompt_id = self._recording.prompt_id_of(post)
            passed = post < self._cursor or post in self._mine
            if not self._begun_at <= post or not passed or prompt_id is None or self._was_deleted(prompt_id, post):
                continue
            end, start = self._recording.end_of(prompt_id, post), self._recording.start_of(prompt_id, post)
            if end is not None and end <= self._cursor:
                ended[prompt_id] = self._recording.history_entry(prompt_id, post)
            elif start is not None and start < self._cursor:
                running.append(self._recording.queue_item(post))
            else:
                waiting.append(self._recording.queue_item(post))
        return ended, waiting, running

    def _was_deleted(self, prompt_id: str, post: int) -> bool:
        for place in range(post, min(self._cursor, len(self._recording.events))):
            if not self._recording.is_request(place, "POST", "/queue"):
                continue
            body = event_json(self._recording.events[place]["request"].get("body"))
            if isinstance(body, dict) and (prompt_id in body.get("delete", ()) or body.get("clear")):
                start = self._recording.start_of(prompt_id, post)
                return start is None or start > place
        return False
