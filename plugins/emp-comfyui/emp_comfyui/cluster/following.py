"""`ChangesFollower`: takes up what is written into the file of changes, while everything goes on."""

from collections.abc import Callable, Iterable

import anyio
from anyio.to_thread import run_sync

from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.server import ComfyUIServer
from emp_core.errors import ConfigError
from emp_core.log.logger import get_logger

__all__ = ["ChangesFollower"]

log = get_logger("emp.comfyui.cluster")


class ChangesFollower:
    """Looks at the file now and then.

    Args:
        take_up: told what is new: servers that were added or changed, and the names of those that were removed. What the
            program itself added or changed meanwhile is left as it is.
    """

    def __init__(
        self,
        configuration: ClusterConfiguration,
        known: Iterable[ComfyUIServer],
        take_up: Callable[[list[ComfyUIServer], list[str]], None],
    ) -> None:
        self._configuration = configuration
        self._known = {server.name: server for server in known}
        self._take_up = take_up
        self._stamp = configuration.changes.stamp

    async def run(self, every_s: float) -> None:
        """Look until cancelled."""
        while True:
            await anyio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Take up what was changed since the last look. A file that cannot be used changes nothing."""
        stamp = await run_sync(lambda: self._configuration.changes.stamp)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            servers = await run_sync(self._configuration.servers)
        except ConfigError as error:
            log.error("the servers stay as they are", error=str(error))  # noqa: TRY400 - its trace says nothing more
            return
        found = {server.name: server for server in servers}
        changed = [server for server in servers if self._known.get(server.name) != server]
        gone = [name for name in self._known if name not in found]
        self._known = found
        self._take_up(changed, gone)
