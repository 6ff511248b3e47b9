"""Clusters of fake servers."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from attrs import frozen
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.cluster.server import ComfyUIServer
from emp_comfyui.testing import FakeComfyUI

QUICK = {
    "EMP_COMFYUI_POLL_S": "0.05",
    "EMP_COMFYUI_GONE_S": "0.2",
    "EMP_COMFYUI_STALL_S": "0.5",
    "EMP_COMFYUI_CANCEL_S": "5",
    "EMP_COMFYUI_CHECK_S": "0.1",
    "EMP_COMFYUI_CHECK_TIMEOUT_S": "3",
}


@frozen
class Fakes:
    """Fake servers by name."""

    servers: Mapping[str, FakeComfyUI]

    def __getitem__(self, name: str) -> FakeComfyUI:
        return self.servers[name]

    def server(self, name: str, **more: Any) -> ComfyUIServer:
        return ComfyUIServer(name, self[name].host, self[name].port, **more)

    def described(self, *names: str) -> str:
        """Some of the servers, as ``NUKE_COMFYUI_SERVERS`` tells them."""
        return json.dumps([self.server(name).as_dict() for name in names])

    def environ(self, folder: Path, **more: str) -> dict[str, str]:
        file = {"EMP_COMFYUI_SERVERS_FILE": str(folder / "changes.json")}
        return {**QUICK, **file, "NUKE_COMFYUI_SERVERS": self.described(*self.servers), **more}

    def pool(self, folder: Path, **more: str) -> ComfyUIServerPool:
        return ComfyUIServerPool.from_env(self.environ(folder, **more))

    @property
    def ran(self) -> dict[str, int]:
        """How many prompts each was given."""
        return {name: len(server.prompts) for name, server in self.servers.items()}


@contextlib.asynccontextmanager
async def fakes(*names: str, **how: Any) -> AsyncIterator[Fakes]:
    async with contextlib.AsyncExitStack() as stack:
        yield Fakes({name: await stack.enter_async_context(FakeComfyUI(**how)) for name in names})


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not met():  # noqa: ASYNC110 - states of a pool have no event to wait for
            await anyio.sleep(0.01)
