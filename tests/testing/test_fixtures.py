from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from emp_core.queue.embedded import use_embedded_redis

_seen: list[str] = []


async def test_the_redis_of_the_fixtures_is_a_real_one(redis_client: Redis, namespace: str) -> None:
    await redis_client.set(f"{namespace}key", "value")
    assert await redis_client.eval("return redis.call('GET', KEYS[1])", 1, f"{namespace}key") == "value"


@pytest.mark.parametrize("_turn", [1, 2])
def test_every_test_has_a_namespace_of_its_own(namespace: str, _turn: int) -> None:
    assert namespace not in _seen
    _seen.append(namespace)


_INNER = """
from redis import Redis

def test_leaves_keys(redis_url, namespace):
    with Redis.from_url(redis_url) as client:
        client.mset({f"{namespace}{n}": n for n in range(5)})

def test_finds_none(redis_url):
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == EXPECTED
"""


@pytest.mark.parametrize("expected", [0, 1])
def test_keys_of_a_test_are_removed_and_nobody_elses(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, expected: int
) -> None:
    with use_embedded_redis(Path(pytester.path)) as other, SyncRedis.from_url(other.url) as client:
        for n in range(expected):
            client.set(f"somebody's {n}", 1)
        monkeypatch.setenv("HUB_REDIS_URL", other.url)
        pytester.makepyfile(_INNER.replace("EXPECTED", str(expected)))
        pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:cacheprovider").assert_outcomes(passed=2)
