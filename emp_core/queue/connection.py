"""Connections to Redis that never hang and never repeat a command by themselves, wherever Redis is."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from attrs import frozen
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from emp_core.config import Settings
from emp_core.errors import ConfigError, QueueUnavailable
from emp_core.log.logger import get_logger
from emp_core.queue.addresses import Address, hash_tag, parse_address, shown_url
from emp_core.queue.client import Client, NotReady
from emp_core.queue.links import Links
from emp_core.queue.sending import QuickConnection, QuickSending, QuickTLSConnection, QuickUnixConnection
from emp_core.queue.topology import (
    ClusterLocator,
    FollowingConnection,
    FollowingTLSConnection,
    Locator,
    SentinelLocator,
)

__all__ = [
    "AWAY",
    "Limits",
    "NotReady",
    "connect",
    "opened",
    "unavailable",
    "wait_for_redis",
]

log = get_logger("emp.redis")

_REPLY_S = 3.0
_BLOCK_S = 4.0

AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
"""What is raised while Redis is away: the command may or may not have been carried out."""


@frozen
class Limits:
    """How long a link may be silent before it counts as dead: blocking reads < replies of blocking reads < the lease.

    Attributes:
        reply_s: how long a command's reply may take.
        block_s: how long a blocking read blocks.
        block_reply_s: how long the reply of a blocking read may take.
    """

    reply_s: float
    block_s: float
    block_reply_s: float

    @classmethod
    def of(cls, lease_s: float) -> "Limits":
        """Such that a worker whose link died has time to say that it lives before its leases end."""
        block_s = min(_BLOCK_S, lease_s / 2)
        return cls(min(_REPLY_S, lease_s / 2), block_s, block_s + min(1.0, lease_s / 4))

    @property
    def copies_ms(self) -> int:
        """How long replicas get to say that they have what was written, in ms; a part of what a reply may take."""
        return round(self.reply_s * 1000 / 3)


def connect(url: str, settings: Settings | None = None, *, blocking: bool = False, max_connections: int = 64) -> Client:
    """A client for any of the addresses that HUB_REDIS_URL may hold. Nothing is sent yet.

    Commands are never repeated by the client: a script whose reply was lost would run twice. Callers repeat what they
    know to be harmless.

    Args:
        blocking: for blocking reads, whose replies take longer.

    Raises:
        ConfigError: the URL cannot be used, or the namespace does not suit it.
    """
    settings = settings or Settings()
    address = parse_address(url)
    limits = Limits.of(settings.lease_s)
    locator = _locator(address, settings.namespace)
    connection_class = _connection_class(address, locator)
    reply_s = limits.block_reply_s if blocking else limits.reply_s
    options: dict[str, Any] = {
        **address.options,
        "decode_responses": True,
        "protocol": 2,  # with RESP3 the pool hands out connections that the server has closed
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": reply_s,
        "socket_connect_timeout": limits.reply_s,
    }
    if locator is not None:
        options["locator"] = locator
    elif address.nodes:
        options["host"], options["port"] = address.nodes[0]
    if "path" not in options:
        options |= _keepalive()
    pool = ConnectionPool(connection_class, max_connections, **options)
    return Client(pool, Links(lambda: connection_class(**options), reply_s, max_connections), locator)


def _locator(address: Address, namespace: str) -> Locator | None:
    match address.kind:
        case "sentinel":
            return SentinelLocator(address)
        case "cluster":
            tag = hash_tag(namespace)
            if tag is None:
                raise ConfigError(
                    f"HUB_REDIS_URL is a cluster, and EMP_NAMESPACE={namespace!r} has no hash tag: the queue's keys have to "
                    "lie in one slot",
                    hint="set EMP_NAMESPACE={emp}: for everything that uses this queue",
                )
            return ClusterLocator(address, tag)
    return None


def _connection_class(address: Address, locator: Locator | None) -> type[QuickSending]:
    if "path" in address.options:
        return QuickUnixConnection
    if locator is None:
        return QuickTLSConnection if address.tls else QuickConnection
    return FollowingTLSConnection if address.tls else FollowingConnection


def _keepalive() -> dict[str, Any]:
    options = {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # macOS has other names for some of them
    }
    return {"socket_keepalive": True, "socket_keepalive_options": options}


async def wait_for_redis(client: Redis, url: str, *, limit_s: float) -> None:
    """Wait until Redis answers, and say so while it does not.

    Raises:
        ConfigError: it answers, and refuses us; or it is not the one that its certificate should say.
        QueueUnavailable: it did not answer within ``limit_s``.
    """
    delay_s, waited = 0.1, False
    error: BaseException | None = None
    with anyio.move_on_after(limit_s):
        while True:
            try:
                await client.ping()
            except exceptions.AuthenticationError as refusal:
                raise ConfigError(f"Redis at {shown_url(url)} refuses the login: {refusal}") from refusal
            except AWAY as failure:
                if certificate := _certificate_error(failure):
                    raise ConfigError(
                        f"Redis at {shown_url(url)} is not trusted: {certificate}",
                        hint="name its authority in the URL: ?ssl_ca_certs=/path/of/ca.pem",
                    ) from failure
                error = failure
            except exceptions.ResponseError as refusal:
                raise ConfigError(f"Redis at {shown_url(url)} refuses us: {refusal}") from refusal
            else:
                if waited:
                    log.info("redis is there", url=shown_url(url))
                return
            if not waited:
                log.warning("waiting for redis", url=shown_url(url), error=str(error), limit_s=limit_s)
                waited = True
            await anyio.sleep(delay_s)
            delay_s = min(2.0, delay_s * 2)
    raise QueueUnavailable(
        f"Redis at {shown_url(url)} did not answer within {limit_s:g} s: {error or 'no reply'}",
        hint="start it, or set HUB_REDIS_URL to where it is",
    )


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


@asynccontextmanager
async def opened(url: str, *, wait_s: float, settings: Settings | None = None) -> AsyncIterator[Redis]:
    """A client that was found to work, closed at the end."""
    client = connect(url, settings)
    try:
        await wait_for_redis(client, url, limit_s=wait_s)
        yield client
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await client.aclose()


def unavailable(url: str, error: BaseException) -> QueueUnavailable:
    """The error for users when Redis went away in mid-call."""
    return QueueUnavailable(
        f"Redis at {shown_url(url)} is away: {error}", hint="the call can be repeated: jobs are not taken twice"
    )
