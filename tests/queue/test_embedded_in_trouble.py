"""The embedded Redis, when a process of it is killed or what it needs is not as it should be."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_core.errors import ConfigError, QueueUnavailable
from emp_core.queue.embedded import embedded_redis, find_server, running, stop
from emp_core.queue.embedded_folder import is_held
from emp_core.queue.embedded_supervisor import try_lock
from emp_core.testing.ports import free_port

from .embedding import client, eventually, is_alive, kept, put, state


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
    port = free_port()
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
