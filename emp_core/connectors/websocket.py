"""`WebSocketConnector`: what connectors to services that push messages have in common.

A socket is opened for as long as an ``async with`` block lasts, and one task of its own reads it all the time, so that the
service is never held up by a slow consumer and its pings are answered:

    async with self.open_socket("/ws", params={"clientId": client_id}) as socket:
        while True:
            match await socket.receive():
                case str() | bytes() as frame: ...
                case Gap(): ...         # frames may be missing: read the state again
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

import anyio
import anyio.abc
import httpcore
import httpx
import wsproto.utilities
from attrs import field, frozen
from httpx_ws import AsyncWebSocketClient, AsyncWebSocketSession, HTTPXWSException, WebSocketUpgradeError

from emp_core.connectors.http import HTTPConnector, Reply
from emp_core.connectors.http_errors import error_of_exception
from emp_core.connectors.socket_frames import Frame, Gap, GuardedStream, WaitingFrames
from emp_core.errors import ConnectionLost, EmpError
from emp_core.jobs.retry import Backoff

__all__ = ["Frame", "Gap", "MessageType", "Socket", "SocketOptions", "WebSocketConnector"]

_READ_CHUNK_BYTES = 256 * 2**10

# What an opened socket may end with. httpx-ws runs its own task group, so these come in exception groups; it looks up
# the answer to a ping without checking, so a pong that nobody asked for comes out as KeyError.
_SOCKET_ERRORS = (
    HTTPXWSException,
    httpx.HTTPError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    wsproto.utilities.ProtocolError,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    KeyError,
)


class MessageType(StrEnum):
    """What a message of a service is about."""

    CONNECTION = "connection"
    SUBMIT = "submit"
    PROGRESS = "progress"
    COMPLETE = "complete"
    ERROR = "error"
    UNKNOWN = "unknown"


@frozen
class SocketOptions:
    """Bounds of a socket.

    Attributes:
        max_frame_bytes: a longer frame ends the socket.
        max_waiting_bytes, max_waiting_frames: what may wait for the consumer. At the bound, frames that may be dropped
            are; when only others are left, the socket ends, so that nothing is lost in silence.
        ping_interval_s, ping_timeout_s: how often the peer is pinged, and how long its answer may take before the socket
            counts as dead.
        open_timeout_s: how long the handshake may take.
        write_timeout_s, close_timeout_s: how long a peer that does not read may hold us up.
        reopen_tries: how often in a row a lost socket is opened again; None: until the block is left.
        backoff: the delays before that.
    """

    max_frame_bytes: int = 64 * 2**20
    max_waiting_bytes: int = 128 * 2**20
    max_waiting_frames: int = 20_000
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 60.0
    open_timeout_s: float = 10.0
    write_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    reopen_tries: int | None = None
    backoff: Backoff = field(factory=lambda: Backoff(base_s=0.25, max_s=10.0))


class WebSocketConnector(HTTPConnector):
    """The base of connectors to services that push messages over a web socket besides answering HTTP."""

    socket_options: ClassVar[SocketOptions] = SocketOptions()

    def classify_message(self, data: Any) -> MessageType:  # noqa: ARG002 - for those who override it
        """What a message, read from JSON, is about."""
        return MessageType.UNKNOWN

    @contextlib.asynccontextmanager
    async def open_socket(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        greeting: Sequence[Any] = (),
        may_drop: Callable[[Frame], bool] = lambda _: False,
        must_open: bool = True,
    ) -> AsyncIterator["Socket"]:
        """A socket that is read all the time until the block ends, and opened again when it is lost.

        Args:
            path: below the connector's base address.
            greeting: JSON messages that are sent first, each time it was opened.
            may_drop: tells the frames that may be dropped when the consumer falls behind.
            must_open: whether failing to open it at first is an error, or only a gap to be mended.

        Raises:
            ServiceUnavailable, ConnectionLost, AuthenticationFailed: it could not be opened at first.
        """
        socket = Socket(self, path, dict(params or {}), [json.dumps(message) for message in greeting], may_drop)
        raised: Exception | None = None
        async with anyio.create_task_group() as group:
            refused: EmpError | None = await group.start(socket.run)
            try:
                if refused is not None and must_open:
                    raise refused
                yield socket
            except Exception as error:
                # Kept and raised outside, so that callers see their own error and not a group around it.
                raised = error
            finally:
                group.cancel_scope.cancel()
        if raised is not None:
            raise raised


class Socket:
    """An open web socket. Made by `WebSocketConnector.open_socket`; for one consumer."""

    def __init__(
        self,
        connector: WebSocketConnector,
        path: str,
        params: Mapping[str, str],
        greeting: Sequence[str],
        may_drop: Callable[[Frame], bool],
    ) -> None:
        self._connector = connector
        self._options = connector.socket_options
        self._path = path
        self._params = params
        self._greeting = greeting
        self._waiting = WaitingFrames(self._options.max_waiting_bytes, self._options.max_waiting_frames, may_drop)
        self._session: AsyncWebSocketSession | None = None
        self._guard: GuardedStream | None = None
        self._opened = 0
        self._starting: anyio.abc.TaskStatus[EmpError | None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames can come now."""
        return self._session is not None

    @property
    def dropped(self) -> int:
        """Frames that were dropped because the consumer fell behind."""
        return self._waiting.dropped

    async def receive(self) -> Frame | Gap:
        """The next frame, or a gap: frames may be missing from here on.

        Raises:
            ConnectionLost: the socket ended and is not opened again.
        """
        return await self._waiting.take()

    async def send(self, frame: Frame) -> None:
        """Send a frame.

        Raises:
            ConnectionLost: the socket is not open, or did not take the frame in time.
        """
        session = self._session
        if session is None:
            raise self._lost("is not open")
        try:
            await (session.send_text(frame) if isinstance(frame, str) else session.send_bytes(frame))
        except _SOCKET_ERRORS as error:
            raise self._lost(f"broke while sending: {type(error).__name__}") from error

    async def run(self, *, task_status: anyio.abc.TaskStatus[EmpError | None]) -> None:
        """Open the socket, read it, open it again. Runs in a task of its own until it is cancelled.

        ``task_status`` is told once: None when the socket is open, or why it could not be opened.
        """
        self._starting = task_status
        tries = 0
        while True:
            opened_before = self._opened
            error = await self._one_life()
            self._tell_opener(error)
            tries = 0 if self._opened > opened_before else tries
            if self._options.reopen_tries is not None and tries >= self._options.reopen_tries:
                self._waiting.end(error)
                return
            self._waiting.put_gap(Gap.LOST)
            tries += 1
            await anyio.sleep(self._options.backoff.delay_s(tries))

    async def _one_life(self) -> EmpError:
        """Open the socket once and read it to its end; gives why it ended."""
        ended: EmpError = self._lost("was closed here: its consumer fell too far behind")
        try:
            async with self._opener().connect(self._url, params=dict(self._params), timeout=self._timeout) as session:
                for message in self._greeting:
                    await session.send_text(message)
                self._session = session
                self._opened += 1
                if self._opened > 1:
                    self._waiting.put_gap(Gap.REOPENED)
                self._tell_opener(None)
                await self._read(session)
        except* _SOCKET_ERRORS as group:
            ended = self._told(_first_of(group))
        finally:
            self._session = None
        return ended

    def _tell_opener(self, error: EmpError | None) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.started(error)

    async def _read(self, session: AsyncWebSocketSession) -> None:
        """Take frames off the socket at once; ends when they may no longer be kept."""
        while True:
            event = await session.receive()
            frame = getattr(event, "data", None)
            if isinstance(frame, bytearray):
                frame = bytes(frame)
            if isinstance(frame, (str, bytes)) and not self._waiting.put(frame):
                return

    def _opener(self) -> AsyncWebSocketClient[AsyncWebSocketSession]:
        options, outer = self._options, self

        class GuardedSession(AsyncWebSocketSession):
            """httpx-ws's session on a stream whose bounds hold: its own cap is a chunk size, its close waits for ever."""

            def __init__(self, stream: httpcore.AsyncNetworkStream, **how: Any) -> None:
                outer._guard = self._guard = GuardedStream(
                    stream,
                    max_frame_bytes=options.max_frame_bytes + _READ_CHUNK_BYTES,
                    write_timeout_s=options.write_timeout_s,
                    close_timeout_s=options.close_timeout_s,
                )
                super().__init__(self._guard, **how)

            async def receive(self, timeout: float | None = None) -> wsproto.events.Event:
                event = await super().receive(timeout)
                self._guard.frame_taken()
                return event

        return AsyncWebSocketClient(
            self._connector.client,
            max_message_size_bytes=_READ_CHUNK_BYTES,
            keepalive_ping_interval_seconds=options.ping_interval_s,
            keepalive_ping_timeout_seconds=options.ping_timeout_s,
            session_class=GuardedSession,
        )

    @property
    def _url(self) -> str:
        return self._connector.base_url + self._path

    @property
    def _timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self._options.open_timeout_s, connect=self._connector.connect_timeout_s)

    def _told(self, error: BaseException) -> EmpError:
        """Why the socket ended, as one of our errors."""
        doing = f"the web socket {self._path}"
        match error:
            case WebSocketUpgradeError(response=response):
                return self._connector.error_for(Reply(response.status_code, response.headers, b""), doing)
            case httpx.HTTPError() | httpx.InvalidURL():
                return error_of_exception(error, endpoint=self._connector.endpoint, doing=doing)
        why = self._guard.ended_because if self._guard is not None else None
        return self._lost(f"broke: {why or str(error) or type(error).__name__}")

    def _lost(self, what: str) -> ConnectionLost:
        endpoint = self._connector.endpoint
        return ConnectionLost(
            f"the web socket {self._path} of {endpoint} {what}", details={"endpoint": endpoint, "request": self._path}
        )


def _first_of(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
