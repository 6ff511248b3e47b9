"""HTTP to addresses from outside: the check and the connection see the same address."""

import ssl
from functools import cached_property

import httpx

from emp_core.network.guard import Guard

__all__ = ["GuardedTransport", "guarded_client"]

_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""No connection is used twice: one that was opened for another host of the same address would be taken for it."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves a request's host once, has the guard look at the addresses, and connects to one of those.

    ``Host`` and the name in the certificate stay those of the URL. As it sees every request, it sees every hop of
    redirects, too. The environment's proxies are not used: they would connect for us, past the guard.

    Args:
        tls: certificates to trust, for https; the usual ones by default.

    Raises:
        AddressRefused: by each request that the guard refuses; nothing was connected then.
    """

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._given_tls = tls

    @cached_property
    def _plain(self) -> httpx.AsyncHTTPTransport:
        # Reading the certificate store takes longer than most requests: not for addresses that need none.
        return httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=_CONNECTIONS)

    @cached_property
    def _tls(self) -> httpx.AsyncHTTPTransport:
        verify: ssl.SSLContext | bool = True if self._given_tls is None else self._given_tls
        return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=_CONNECTIONS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, to the first of the host's addresses that takes the connection."""
        try:
            addresses = await self._guard.addresses(request.url)
        except OSError as error:
            raise httpx.ConnectError(f"{request.url.host} cannot be resolved: {error}", request=request) from error
        inner = self._tls if request.url.scheme == "https" else self._plain
        for address in addresses[:-1]:
            try:
                return await inner.handle_async_request(_at(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent yet
        return await inner.handle_async_request(_at(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close what was opened."""
        for name in ("_plain", "_tls"):
            if name in self.__dict__:
                await self.__dict__[name].aclose()


def guarded_client(
    guard: Guard, *, timeout: httpx.Timeout | float, tls: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """A client for URLs from outside. It follows no redirects unless a request asks for it."""
    return httpx.AsyncClient(
        transport=GuardedTransport(guard, tls=tls),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        # A cap on bytes that were packed would cap nothing.
        headers={"user-agent": "emp-core", "accept-encoding": "identity"},
    )


def _at(request: httpx.Request, address: str) -> httpx.Request:
    host = request.url.raw_host.decode("ascii").removesuffix(".")
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )
