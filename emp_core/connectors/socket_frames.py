"""Frames between a socket's reader and its consumer, with bounds that hold."""

import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import anyio
import anyio.lowlevel
import httpcore

from emp_core.errors import ConnectionLost, EmpError

__all__ = ["Frame", "Gap", "GuardedStream", "WaitingFrames"]

Frame = str | bytes
"""A whole message: text or binary."""


class Gap(Enum):
    """A place in the stream of frames where some may be missing."""

    LOST = "the socket was lost and is being opened again"
    REOPENED = "the socket is open again"


class WaitingFrames:
    """A queue with bounds in bytes and frames. Putting never waits: the reader of a socket must not.

    At a bound, first the arriving frame is dropped if it may be, then all waiting ones that may be; if that is not
    enough, `put` refuses, and the socket has to end.
    """

    def __init__(self, max_bytes: int, max_frames: int, may_drop: Callable[[Frame], bool]) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._may_drop = may_drop
        self._items: deque[Frame | Gap] = deque()
        self._bytes = 0
        self._arrived = anyio.Event()
        self._ended: EmpError | None = None

    def put(self, frame: Frame) -> bool:
        """Take a frame; false: there is no room, and nothing that may be dropped."""
        if not self._fits(frame):
            if self._may_drop(frame):
                self.dropped += 1
                return True
            self._drop_waiting()
            if not self._fits(frame):
                return False
        self._items.append(frame)
        self._bytes += _size(frame)
        self._arrived.set()
        return True

    def put_gap(self, gap: Gap) -> None:
        """Note that frames may be missing; one note for many gaps in a row."""
        if self._items and isinstance(self._items[-1], Gap):
            self._items.pop()
        self._items.append(gap)
        self._arrived.set()

    def end(self, error: EmpError) -> None:
        """Nothing comes after what waits now."""
        self._ended = error
        self._arrived.set()

    async def take(self) -> Frame | Gap:
        """The next frame or gap. Raises ConnectionLost when nothing comes any more."""
        await anyio.lowlevel.checkpoint()  # so that a consumer with much to take does not keep everybody else waiting
        while not self._items:
            if self._ended is not None:
                raise ConnectionLost(self._ended.message, hint=self._ended.hint, details=self._ended.details)
            self._arrived = anyio.Event()
            await self._arrived.wait()
        item = self._items.popleft()
        if not isinstance(item, Gap):
            self._bytes -= _size(item)
        return item

    def _fits(self, frame: Frame) -> bool:
        return len(self._items) < self._max_frames and self._bytes + _size(frame) <= self._max_bytes

    def _drop_waiting(self) -> None:
        kept = deque(item for item in self._items if isinstance(item, Gap) or not self._may_drop(item))
        self.dropped += len(self._items) - len(kept)
        self._items = kept
        self._bytes = sum(_size(item) for item in kept if not isinstance(item, Gap))


class GuardedStream(httpcore.AsyncNetworkStream):
    """A network stream that ends when one frame grows too long, and that cannot be held up by a peer that does not read.

    Args:
        max_frame_bytes: what may be read between two calls of `frame_taken`.
    """

    def __init__(
        self,
        stream: httpcore.AsyncNetworkStream,
        *,
        max_frame_bytes: int,
        write_timeout_s: float,
        close_timeout_s: float,
    ) -> None:
        self._stream = stream
        self._max_frame_bytes = max_frame_bytes
        self._write_timeout_s = write_timeout_s
        self._close_timeout_s = close_timeout_s
        self._since_frame = 0
        self.ended_because: str | None = None
        """Why this stream ended itself; httpx-ws does not hand the reason on."""

    def frame_taken(self) -> None:
        """A whole frame came out of what was read: counting begins again."""
        self._since_frame = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._since_frame += len(data)
        if self._since_frame > self._max_frame_bytes:
            self.ended_because = f"a frame is longer than the {self._max_frame_bytes:,} bytes that are taken"
            raise httpcore.ReadError(self.ended_because)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, self._write_timeout_s if timeout is None else timeout)
        except httpcore.WriteTimeout as error:
            self.ended_because = "the peer does not read"
            raise httpcore.WriteError(self.ended_because) from error

    async def aclose(self) -> None:
        with anyio.move_on_after(self._close_timeout_s, shield=True):
            await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _size(frame: Frame) -> int:
    return len(frame) if isinstance(frame, bytes) else len(frame.encode())
