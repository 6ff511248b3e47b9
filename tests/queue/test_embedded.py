"""The embedded Redis, with real processes that are killed for real."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from redis.exceptions import AuthenticationError

from emp_core.queue.embedded import EmbeddedRedis, embedded_redis, running, stop, use_embedded_redis

from .embedding import client, eventually, is_alive, kept, put, state

USER = """
import sys
from pathlib import Path
from emp_core.queue.embedded import use_embedded_redis
with use_embedded_redis(Path(sys.argv[1]), stay=sys.argv[2] == "stay") as server:
    print(server.url, server.pid, flush=True)
    sys.stdin.read()
"""


class User:
    """Another process that uses the server until its stdin closes."""

    def __init__(self, data_dir: Path, stay: bool) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data_dir), "stay" if stay else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        url, pid = self.process.stdout.readline().split()
        return url, int(pid)

    def leave(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def user(data_dir: Path, *, stay: bool = False) -> Iterator[User]:
    made = User(data_dir, stay)
    try:
        yield made
    finally:
        made.kill()


async def test_it_starts_answers_and_ends_with_its_only_user(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        put(server.url, "hello")
        assert kept(server.url) == "hello"
        assert await running(data_dir) == server
    assert not is_alive(server.pid)
    assert await running(data_dir) is None


async def test_data_survive_a_restart_at_the_same_address(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as first:
        put(first.url, "hello")
    async with embedded_redis(data_dir) as second:
        assert kept(second.url) == "hello"
    assert second.url == first.url
    assert second.pid != first.pid


def test_users_share_one_server_and_the_last_one_ends_it(data_dir: Path) -> None:
    with user(data_dir) as one, user(data_dir) as two:
        (url, pid), other = one.ready(), two.ready()
        assert other == (url, pid)
        one.leave()
        put(url, "still here")
        two.leave()
    assert not is_alive(pid)


def test_many_processes_that_start_at_once_get_one_server(data_dir: Path) -> None:
    users = [User(data_dir, stay=False) for _ in range(5)]
    try:
        assert len({one.ready() for one in users}) == 1
    finally:
        for one in users:
            one.kill()
    eventually(lambda: state(data_dir)["status"] == "stopped")


def test_threads_that_come_and_go_never_lose_the_server(data_dir: Path) -> None:
    def come_and_go() -> None:
        for _ in range(4):
            with use_embedded_redis(data_dir) as server:
                put(server.url, "x")

    failures: list[BaseException] = []

    def watched() -> None:
        try:
            come_and_go()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=watched) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert state(data_dir)["status"] == "stopped"


def test_the_server_ends_when_its_owner_is_killed(data_dir: Path) -> None:
    with user(data_dir) as owner:
        _, pid = owner.ready()
        owner.kill()
        eventually(lambda: not is_alive(pid))


def test_the_server_outlives_a_killed_owner_while_others_use_it(data_dir: Path) -> None:
    with user(data_dir) as owner, user(data_dir) as other:
        url, pid = owner.ready()
        other.ready()
        owner.kill()
        put(url, "here")
        assert is_alive(pid)
        other.leave()
    assert not is_alive(pid)


def test_asked_to_stay_it_stays_until_it_is_stopped(data_dir: Path) -> None:
    with user(data_dir, stay=True) as owner:
        url, pid = owner.ready()
        owner.leave()
    put(url, "x")
    with user(data_dir) as passer_by:
        assert passer_by.ready() == (url, pid)
        passer_by.leave()
    found = anyio.run(running, data_dir)
    assert found is not None
    assert found.stays
    assert anyio.run(stop, data_dir)
    assert not is_alive(pid)
    assert not anyio.run(stop, data_dir)


async def test_stop_ends_it_for_those_who_use_it(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        assert await stop(data_dir)
        assert not is_alive(server.pid)
        async with embedded_redis(data_dir) as next_one:
            assert next_one.pid != server.pid


async def test_a_shutdown_by_hand_is_not_undone(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        with client(server.url) as connection:
            connection.shutdown()
        await anyio.to_thread.run_sync(eventually, lambda: state(data_dir)["status"] == "stopped")
    assert await running(data_dir) is None


async def test_nobody_gets_in_without_the_password_and_only_the_user_can_read_it(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        with client(f"redis://127.0.0.1:{server.port}") as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        password = state(data_dir)["password"]
        assert password not in repr(server)
        assert password in server.cli_command
        assert (data_dir / "redis").stat().st_mode & 0o777 == 0o700
        assert (data_dir / "redis" / "state.json").stat().st_mode & 0o777 == 0o600
        shown = await anyio.run_process(["ps", "-ww", "-o", "args=", "-p", str(server.pid)])
        assert password not in shown.stdout.decode()


async def test_it_listens_on_loopback_only(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        with client(server.url) as connection:
            assert connection.config_get("bind") == {"bind": "127.0.0.1"}
            assert connection.config_get("appendonly") == {"appendonly": "yes"}


def test_it_is_described_without_its_password() -> None:
    assert "url" not in {part.split("=")[0] for part in repr(_example()).split("(")[1].split(", ")}


def _example() -> EmbeddedRedis:
    from datetime import UTC, datetime

    return EmbeddedRedis("redis://default:pw@127.0.0.1:1/0", 1, 1, Path(), Path(), datetime.now(UTC), stays=False)
