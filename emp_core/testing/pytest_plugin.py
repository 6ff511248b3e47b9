"""pytest fixtures for projects that build on emp-core; pytest loads them by itself where emp-core is installed.

Only pytest is imported here: every pytest run on the machine pays for what this module imports.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["namespace", "redis_client", "redis_url"]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis: the one that HUB_REDIS_URL names, else one that is started for this process and ends with it.

    The first may hold somebody's data, so tests put all their keys below `namespace`.
    """
    from emp_core.config import Settings
    from emp_core.queue.embedded import use_embedded_redis

    named = Settings.from_env().redis_url
    if named:
        yield named
        return
    with use_embedded_redis(tmp_path_factory.mktemp("hub")) as server:
        yield server.url


@pytest.fixture
def namespace(redis_url: str) -> Iterator[str]:
    """A prefix for this test's keys that no other test has; whatever lies below it is removed after the test."""
    from redis import Redis

    prefix = f"{{test-{secrets.token_hex(6)}}}:"
    yield prefix
    with Redis.from_url(redis_url, protocol=2) as client:
        left = list(client.scan_iter(match=f"{prefix}*", count=1000))
        if left:
            client.unlink(*left)


@pytest.fixture
async def redis_client(
    redis_url: str,
    anyio_backend: object,  # noqa: ARG001 - makes anyio's plugin run this fixture, in whichever mode it is
) -> "AsyncIterator[Redis]":
    """A client for looking at what is in Redis. Answers are text."""
    from redis.asyncio import Redis

    # RESP2: with RESP3 the pool hands out connections that the server has closed.
    async with Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
        yield client
