"""The processes that hold the fake server's models: who is loaded, who waits for whom."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from attrs import define, field

from emp_ollama.testing.models import FakeModel
from emp_ollama.testing.records import Seen

__all__ = ["Busy", "Runner", "Runners"]


class Busy(Exception):
    """Too many requests wait for a model to be loaded."""


@define(eq=False)
class Runner:
    """The process of one loaded model."""

    name: str
    model: FakeModel
    sizing: Mapping[str, Any]
    users: int = 0
    slots: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(1))


class Runners:
    """As Ollama schedules: requests for a loaded model wait for its slots without limit; those that need a load stand in a
    queue of limited length; another model makes room when it is idle; other sizes load a model anew.

    Args:
        load: lets the time of a load pass.
        changed: told after every change.
    """

    def __init__(
        self, *, slots: int, max_loaded: int, max_queue: int, load: Callable[[], Any], changed: Callable[[], None]
    ) -> None:
        self.loaded: dict[str, Runner] = {}
        self.loads: list[str] = []
        """Every load there was."""
        self._slots = slots
        self._max_loaded = max_loaded
        self._max_queue = max_queue
        self._load = load
        self._waiting = 0
        self._placing = anyio.Lock()
        self._freed = anyio.Event()
        self._tell = changed

    @asynccontextmanager
    async def slot(self, name: str, model: FakeModel, sizing: Mapping[str, Any], seen: Seen) -> AsyncIterator[bool]:
        """A slot of a model, loaded first if it has to be; tells whether it was."""
        runner = self._fitting(name, sizing)
        fresh = runner is None
        if runner is None:
            runner = await self._placed(name, model, sizing, seen)
        runner.users += 1
        try:
            seen.state = "waiting"
            async with runner.slots:
                seen.state = "running"
                self._tell()
                yield fresh
        finally:
            runner.users -= 1
            self._free()

    def unload(self, name: str) -> None:
        """Let go of a model."""
        self.loaded.pop(name, None)
        self._free()

    def _fitting(self, name: str, sizing: Mapping[str, Any]) -> Runner | None:
        runner = self.loaded.get(name)
        return runner if runner is not None and runner.sizing == sizing else None

    async def _placed(self, name: str, model: FakeModel, sizing: Mapping[str, Any], seen: Seen) -> Runner:
        if self._waiting > self._max_queue:  # one is being placed, and so many more may wait
            raise Busy
        self._waiting += 1
        seen.state = "loading"
        self._tell()
        try:
            async with self._placing:
                if runner := self._fitting(name, sizing):
                    return runner
                while not self._made_room(name):
                    await self._freed.wait()
                await self._load()
                self.loads.append(name)
                self.loaded[name] = Runner(name, model, sizing, slots=anyio.Semaphore(self._slots))
                return self.loaded[name]
        finally:
            self._waiting -= 1
            self._tell()

    def _made_room(self, name: str) -> bool:
        """Whether there is room for this model now; idle ones leave for it."""
        own = self.loaded.get(name)
        if own is not None:  # with other sizes
            if own.users:
                return False
            del self.loaded[name]
        while len(self.loaded) >= self._max_loaded:
            idle = next((one for one in self.loaded.values() if not one.users), None)
            if idle is None:
                return False
            del self.loaded[idle.name]
        return True

    def _free(self) -> None:
        freed, self._freed = self._freed, anyio.Event()
        freed.set()
        self._tell()
