"""Azure's own client for one container, made when it is first used."""

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ContainerClient

from emp_core.network.guard import Guard
from emp_core.storage.azure_access import AzureAccess

__all__ = ["AzureClient"]

_CONNECT_S = 10
_READ_S = 60
"""How long nothing may come. A block is on its way for as long, on a slow line."""


class AzureClient:
    """Makes clients of one container. It has to be used in one event loop, and closed there.

    Args:
        guard: looks at every address before it is connected to; the environment's proxies, which would connect in our
            place, are not used then, and no redirect is followed.
    """

    def __init__(self, access: AzureAccess, container: str, guard: Guard | None) -> None:
        self._access = access
        self._name = container
        self._guard = guard
        self._service: BlobServiceClient | None = None
        self._identity: Any = None

    @property
    def service(self) -> BlobServiceClient:
        """The account's client."""
        if self._service is None:
            self._service = BlobServiceClient(
                self._access.endpoint,
                credential=self._credential(),
                retry_total=0,  # we try again ourselves, and say so
                connection_timeout=_CONNECT_S,
                read_timeout=_READ_S,
                **self._guarded(),
            )
        return self._service

    @property
    def container(self) -> ContainerClient:
        """The container's client."""
        return self.service.get_container_client(self._name)

    def blob(self, name: str) -> BlobClient:
        """A blob's client."""
        return self.container.get_blob_client(name)

    async def aclose(self) -> None:
        """Close connections; what is used afterwards opens new ones."""
        service, self._service = self._service, None
        identity, self._identity = self._identity, None
        if service is not None:
            await service.close()
        if identity is not None:
            await identity.close()

    def _credential(self) -> Any:
        if self._access.key is not None:
            return AzureNamedKeyCredential(self._access.account, self._access.key)
        if self._access.sas_token is not None:
            return AzureSasCredential(self._access.sas_token)
        from azure.identity.aio import DefaultAzureCredential

        self._identity = DefaultAzureCredential()
        return self._identity

    def _guarded(self) -> dict[str, Any]:
        if self._guard is None:
            return {}
        connector = aiohttp.TCPConnector(
            resolver=_GuardedResolver(self._guard, self._access.endpoint), use_dns_cache=False
        )
        session = aiohttp.ClientSession(
            connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        transport = AioHttpTransport(
            session=session, use_env_settings=False, connection_timeout=_CONNECT_S, read_timeout=_READ_S
        )
        return {"transport": transport, "use_env_settings": False, "permit_redirects": False}


class _GuardedResolver(AbstractResolver):
    """Gives those addresses of a host that may be connected to: what is looked at is what is connected to."""

    def __init__(self, guard: Guard, endpoint: str) -> None:
        self._guard = guard
        self._scheme = endpoint.partition(":")[0]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._guard.addresses(f"{self._scheme}://{host}:{port}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
            if family == socket.AF_UNSPEC or (":" in address) == (family == socket.AF_INET6)
        ]

    async def close(self) -> None:
        """Nothing is kept open."""
