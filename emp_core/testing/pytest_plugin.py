"""pytest fixtures for projects that build on emp-core; pytest loads them by itself where emp-core is installed.

Only pytest is imported here: every pytest run on the machine pays for what this module imports.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from emp_core.config import Settings
    from emp_core.queue.queue import JobQueue
    from emp_core.testing.object_stores import BlobServer, S3Server
    from emp_core.testing.steered import Steering
    from emp_core.testing.workers import RunningWorker, WorkerStarter

__all__ = [
    "azurite",
    "emp_settings",
    "leak_check",
    "namespace",
    "queue",
    "redis_client",
    "redis_url",
    "s3_server",
    "start_worker",
    "steering",
    "worker",
]


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


@pytest.fixture
def leak_check(redis_url: str, namespace: str) -> Iterator[None]:
    """Fails a test that leaves a key without expiry and owner, or indexes that contradict each other."""
    from redis import Redis

    from emp_core.testing.leaks import disowned, take_snapshot

    yield
    with Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
        problems = disowned(take_snapshot(client, namespace))
    if problems:
        pytest.fail("keys without expiry or owner:\n" + "\n".join(problems), pytrace=False)


@pytest.fixture
def emp_settings(redis_url: str, namespace: str, tmp_path: Path) -> "Settings":
    """Settings of this test: its own namespace and folder, retries without delay."""
    from emp_core.testing.workers import fast_settings

    return fast_settings(redis_url, namespace, tmp_path)


@pytest.fixture
async def queue(
    emp_settings: "Settings",
    leak_check: None,  # noqa: ARG001 - looks at what is left when the queue is closed
    anyio_backend: object,  # noqa: ARG001 - see redis_client
) -> "AsyncIterator[JobQueue]":
    """An open queue of this test's own."""
    from emp_core.queue.queue import JobQueue

    async with JobQueue.connect(settings=emp_settings) as opened:
        yield opened


@pytest.fixture
async def start_worker(
    emp_settings: "Settings",
    leak_check: None,  # noqa: ARG001 - looks at what is left when the workers have ended
    anyio_backend: object,  # noqa: ARG001 - see redis_client
) -> "AsyncIterator[WorkerStarter]":
    """Starts workers beside the test, on its queue: ``await start_worker()``; see `emp_core.testing.workers.WorkerStarter`."""
    from emp_core.testing.workers import WorkerStarter

    async with WorkerStarter.open(emp_settings) as starter:
        yield starter


@pytest.fixture
async def worker(start_worker: "WorkerStarter") -> "RunningWorker":
    """A worker that runs beside the test and serves ``echo``."""
    return await start_worker()


@pytest.fixture
def steering() -> "Steering":
    """What steers a `emp_core.testing.steered.SteeredConnector` of this test."""
    from emp_core.testing.steered import Steering

    return Steering()


@pytest.fixture(scope="session")
def azurite() -> "Iterator[BlobServer]":
    """An Azure Blob Storage to test with: Azurite, which npm installs, started for this process."""
    from emp_core.testing.object_stores import NO_AZURITE, find_azurite, run_azurite

    program = find_azurite()
    if program is None:
        pytest.skip(NO_AZURITE)
    with run_azurite(program) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[S3Server]":
    """An S3 to test with: moto, started for this process."""
    from emp_core.testing.object_stores import NO_MOTO, has_moto, run_moto

    if not has_moto():
        pytest.skip(NO_MOTO)
    with run_moto() as server:
        yield server
