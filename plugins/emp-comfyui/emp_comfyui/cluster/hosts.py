"""`Hosts`: the servers of a cluster with the connector to each, made when it is first needed."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
from attrs import define, field

from emp_comfyui.cluster.server import ComfyUIServer
from emp_comfyui.connector import ComfyUIWebSocketConnector
from emp_comfyui.needs import Needs
from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError

__all__ = ["Hosts"]

_CLOSE_LIMIT_S = 5.0


@define(eq=False)
class _Host:
    server: ComfyUIServer
    connector: ComfyUIWebSocketConnector
    users: int = 0
    is_ready: bool = False
    getting_ready: anyio.Lock = field(factory=anyio.Lock)


class Hosts:
    """Connectors by server.

    Args:
        config: the service's configuration; each server's address goes over its own.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._servers: dict[str, ComfyUIServer] = {}
        self._hosts: dict[str, _Host] = {}
        self._left: list[_Host] = []
        """Those that nobody will ask for any more; closed when nobody uses them."""

    @property
    def servers(self) -> tuple[ComfyUIServer, ...]:
        """The servers, in order."""
        return tuple(self._servers.values())

    def has(self, name: str) -> bool:
        """Whether there is a server of this name."""
        return name in self._servers

    def server(self, name: str) -> ComfyUIServer:
        """A server by its name.

        Raises:
            ConfigError: there is none.
        """
        server = self._servers.get(name)
        if server is None:
            raise ConfigError(f"there is no server {name!r}", hint=f"there are: {', '.join(self._servers) or 'none'}")
        return server

    def have(self, servers: Iterable[ComfyUIServer]) -> None:
        """Have these servers and no others."""
        self._servers = {server.name: server for server in servers}
        for name, host in [*self._hosts.items()]:
            server = self._servers.get(name)
            if server is None or server.environ() != host.server.environ():
                self._left.append(self._hosts.pop(name))

    @asynccontextmanager
    async def connector(self, name: str, *, ready: bool = False) -> AsyncIterator[ComfyUIWebSocketConnector]:
        """The connector to a server, for as long as the block lasts, whatever becomes of the server meanwhile.

        Args:
            ready: whether it must be connected: it knows then what the server has.

        Raises:
            ConfigError: there is no such server.
            ServiceUnavailable: it must be connected, and the server is not there.
        """
        host = self._host(self.server(name))
        host.users += 1
        try:
            if ready:
                await self._get_ready(host)
            yield host.connector
        finally:
            host.users -= 1
            await self._close_left()

    async def refresh(self, name: str) -> None:
        """Have the connector to a server know what it has now. Raises as `connector` does."""
        async with self.connector(name, ready=True) as connector:
            await connector.inventory.refresh()

    def went_away(self, name: str) -> None:
        """The server gives no answer now, and may come back as another one."""
        host = self._hosts.get(name)
        if host is not None:
            host.is_ready, host.connector.comfyui.is_away = False, True

    def is_away(self, name: str) -> bool:
        """Whether the server gave no answer when it was asked last."""
        host = self._hosts.get(name)
        return host is not None and host.connector.comfyui.is_away

    def may_have(self, name: str, needs: Needs) -> bool:
        """Whether a server has what a workflow needs, as far as is known without asking it."""
        host = self._hosts.get(name)
        return host is None or host.connector.inventory.may_have(needs)

    def is_there(self, name: str) -> None:
        """The server answers."""
        host = self._hosts.get(name)
        if host is not None:
            host.connector.comfyui.is_away = False

    async def _get_ready(self, host: _Host) -> None:
        async with host.getting_ready:
            if not host.is_ready:
                await host.connector.connect()
                host.is_ready = True

    async def aclose(self) -> None:
        """Close all connections."""
        self._left += self._hosts.values()
        self._hosts = {}
        await self._close_left()

    def _host(self, server: ComfyUIServer) -> _Host:
        if server.name not in self._hosts:
            self._hosts[server.name] = _Host(server, ComfyUIWebSocketConnector(self._config_for(server)))
        return self._hosts[server.name]

    def _config_for(self, server: ComfyUIServer) -> ServiceConfig:
        environ: Mapping[str, str] = {**self._config.environ, **server.environ()}
        return ServiceConfig(self._config.name, environ, self._config.options)

    async def _close_left(self) -> None:
        for host in [one for one in self._left if not one.users]:
            self._left.remove(host)
            with anyio.move_on_after(_CLOSE_LIMIT_S, shield=True):
                await host.connector.disconnect()
