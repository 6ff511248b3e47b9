"""A connector with a worker's place around it, and servers to speak to."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve
from emp_openai.connector import OpenAIConnector
from emp_openai.testing import FakeOpenAI

from emp_core.connectors.base import ServiceConfig
from emp_core.queue.queue import JobQueue
from emp_core.services.resolve import ServiceBinding
from emp_core.testing.conformance.rig import Rig
from emp_core.testing.workers import bindings_of

__all__ = ["Gate", "accounts", "binding", "chat", "environ_of", "rigged", "until_withdrawn"]

POLL_S = "0.02"


def chat(said: str, **more: Any) -> dict[str, Any]:
    """A chat's payload."""
    return {"model": "fake", "messages": [{"role": "user", "content": said}], **more}


def environ_of(server: FakeOpenAI, **environ: str) -> dict[str, str]:
    """Variables of a worker whose only account is at a server."""
    return {"OPENAI_BASE_URL": server.base_url, "EMP_OPENAI_POLL_S": POLL_S, **environ}


def accounts(
    servers: Mapping[str, FakeOpenAI], facts: Sequence[Mapping[str, Any]] = (), **environ: str
) -> dict[str, str]:
    """Variables of a worker with an account at each server.

    Args:
        facts: of each account, in order, what else is said of it.
    """
    told = [{"name": name, "base_url": server.base_url} for name, server in servers.items()]
    for account, more in zip(told, facts, strict=False):
        account.update(more)
    return {"EMP_OPENAI_ACCOUNTS": json.dumps(told), "EMP_OPENAI_POLL_S": POLL_S, **environ}


def binding(environ: Mapping[str, str]) -> ServiceBinding:
    """The service, for a worker of the test."""
    [found] = bindings_of("openai")
    return evolve(found, config=ServiceConfig("openai", environ))


async def until_withdrawn(queue: JobQueue, *words: str) -> None:
    """Wait until the worker's service takes no jobs, and says why in these words; no words: until it takes jobs."""
    with anyio.fail_after(20):
        while True:  # the worker tells Redis, and nobody else
            for worker in await queue.workers():
                reason = worker.capabilities.services["openai"].withdrawn or ""
                if all(word in reason for word in words) and bool(words) == bool(reason):
                    return
            await anyio.sleep(0.01)


@asynccontextmanager
async def rigged(environ: Mapping[str, str], folder: Path, service: str = "openai") -> AsyncIterator[Rig]:
    """A connected connector."""
    connector = OpenAIConnector(ServiceConfig("openai", environ))
    await connector.connect()
    try:
        async with anyio.create_task_group() as group:
            yield Rig.at(folder, connector, service, group)
            group.cancel_scope.cancel()
    finally:
        await connector.disconnect()


class Gate:
    """Lets a server's events through, so many at first, and the others when it is opened."""

    def __init__(self, through: int) -> None:
        self._left = through
        self._open = anyio.Event()

    async def __call__(self) -> None:
        """Wait until the next event may come."""
        if self._left <= 0:
            await self._open.wait()
        self._left -= 1

    def open(self) -> None:
        """Let all through."""
        self._open.set()
