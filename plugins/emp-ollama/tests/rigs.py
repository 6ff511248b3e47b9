"""Connectors at fake servers, with a worker's place around them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from emp_ollama.connector import OllamaConnector
from emp_ollama.testing import FakeOllama

from emp_core.connectors.base import ServiceConfig
from emp_core.testing.conformance.rig import Rig

__all__ = ["Gate", "hosts_of", "rigged"]


class Gate:
    """Lets a fake server's time pass in a test's hand: ``FakeOllama(pause=gate)``.

    Attributes:
        passed: what passed so far: ``frame``, ``load``, ``pull``.
    """

    def __init__(self) -> None:
        self.passed: list[str] = []
        self._stops: dict[str, int] = {}
        self._go = anyio.Event()

    def stop(self, what: str, *, after: int = 0) -> None:
        """Stop when so many of these have passed."""
        self._stops[what] = after

    def open(self) -> None:
        """Let all pass."""
        self._stops.clear()
        self._go.set()

    async def __call__(self, what: str) -> None:
        self.passed.append(what)
        if what in self._stops and self.passed.count(what) > self._stops[what]:
            await self._go.wait()
        await anyio.lowlevel.checkpoint()


def hosts_of(**servers: FakeOllama | dict[str, Any]) -> dict[str, str]:
    """The environment of a worker for several servers, by name; an object adds fields to one's entry."""
    entries = [
        {"name": name, "host": one.url} if isinstance(one, FakeOllama) else {"name": name, **one}
        for name, one in servers.items()
    ]
    return {"EMP_OLLAMA_HOSTS": json.dumps(entries)}


@asynccontextmanager
async def rigged(folder: Path, environ: dict[str, str], service_required: str = "ollama") -> AsyncIterator[Rig]:
    """The connector that a worker makes in this environment, connected."""
    connector = OllamaConnector.for_service(ServiceConfig("ollama", environ))
    await connector.connect()
    try:
        async with anyio.create_task_group() as group:
            yield Rig.at(folder, connector, service_required, group)
            group.cancel_scope.cancel()
    finally:
        await connector.disconnect()
