"""What the bench asks of a peer. Handles are whatever the peer gives back for a job."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

__all__ = ["AsyncPeer", "BlockingPeer", "chunks", "redis_url"]


def redis_url() -> str:
    """Where the bench's Redis is."""
    return os.environ["BENCH_REDIS"]


class AsyncPeer(ABC):
    """A queue with an asyncio client."""

    async def open(self) -> None:
        """Connect."""

    async def prepare(self) -> None:
        """What there is to do before submits are measured; leaves at most one job behind."""

    @abstractmethod
    async def submit(self, sent: float) -> Any:
        """Submit one job."""

    @abstractmethod
    async def submit_many(self, count: int, text: str) -> None:
        """Submit many jobs with the fastest means that the peer offers.

        Args:
            text: what each job carries besides; may be empty.
        """

    @abstractmethod
    async def result(self, handle: Any) -> None:
        """Wait until a job's result is there."""

    @abstractmethod
    async def recorded(self, count: int) -> bool:
        """Whether ``count`` jobs, which is all, are done and recorded."""

    @abstractmethod
    def work(self) -> None:
        """Run a worker in this process until it is killed."""


class BlockingPeer(ABC):
    """A queue with a blocking client.

    Attributes:
        waiters: threads that wait for results.
    """

    waiters = 8

    def open(self) -> None:
        """Connect."""

    def prepare(self) -> None:
        """What there is to do before submits are measured; leaves at most one job behind."""

    @abstractmethod
    def submit(self, sent: float) -> Any:
        """Submit one job."""

    @abstractmethod
    def submit_many(self, count: int, text: str) -> None:
        """Submit many jobs with the fastest means that the peer offers."""

    @abstractmethod
    def result(self, handle: Any) -> None:
        """Wait until a job's result is there."""

    @abstractmethod
    def recorded(self, count: int) -> bool:
        """Whether ``count`` jobs, which is all, are done and recorded."""

    @abstractmethod
    def work(self) -> None:
        """Run a worker in this process until it is killed."""


def chunks(count: int, size: int) -> Sequence[int]:
    """``count`` in parts of at most ``size``."""
    return [min(size, count - start) for start in range(0, count, size)]
