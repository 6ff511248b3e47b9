"""Connections to Redis that never hang and never repeat a command by themselves."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import structlog
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from emp_core.errors import ConfigError, QueueUnavailable

__all__ = ["AWAY", "SOCKET_TIMEOUT_S", "connect", "shown_url", "wait_for_redis"]

log = structlog.get_logger("emp.redis")

SOCKET_TIMEOUT_S = 5.0
"""A reply that takes longer means that the link is dead. Blocking reads block for less."""

AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, OSError)
"""What is raised while Redis is away: the command may or may not have been carried out."""


def connect(url: str, *, max_connections: int = 64) -> Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``. Nothing is sent yet.

    Commands are never repeated by the client: a script whose reply was lost would run twice. Callers repeat what they
    know to be harmless.

    Raises:
        ConfigError: the URL cannot be used.
    """
    try:
        return Redis.from_url(
            url,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            max_connections=max_connections,
            **_keepalive(url),
        )
    except ValueError as error:
        raise ConfigError(
            f"HUB_REDIS_URL={shown_url(url)!r} cannot be used: {error}",
            hint="write it as redis://[user:password@]host:port/db, rediss://… or unix:///path",
        ) from error


def _keepalive(url: str) -> dict[str, Any]:
    if url.startswith("unix:"):
        return {}
    options = {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # macOS has other names for some of them
    }
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def shown_url(url: str) -> str:
    """The URL without user, password and query: fit for logs."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


async def wait_for_redis(client: Redis, url: str, *, limit_s: float) -> None:
    """Wait until Redis answers, and say so while it does not.

    Raises:
        ConfigError: it answers, and refuses us.
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


@asynccontextmanager
async def opened(url: str, *, wait_s: float) -> AsyncIterator[Redis]:
    """A client that was found to work, closed at the end."""
    client = connect(url)
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
