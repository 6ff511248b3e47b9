"""The queue behind sentinels, on a cluster, over TLS, with an ACL, and over a Unix socket."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.connection import NotReady, connect, wait_for_redis
from emp_core.queue.queue import JobQueue
from emp_core.queue.topology import FollowingConnection
from emp_core.testing.ports import free_port
from emp_core.testing.workers import WorkerStarter, fast_settings
from tests.chaos.servers import HOST, Group, Server, cluster, sentinels, server


@asynccontextmanager
async def hub(kind: str, folder: Path) -> AsyncIterator[Group]:
    async with (sentinels if kind == "sentinel" else cluster)(folder) as group:
        yield group


def settings_for(url: str, folder: Path, **changed: object) -> Settings:
    return fast_settings(url, "{emp}:", folder, **changed)


async def goes_the_whole_way(settings: Settings) -> None:
    """Submit one and many, wait, follow, and leave."""
    async with JobQueue.connect(settings=settings) as queue, WorkerStarter.open(settings) as start:
        await start()
        jobs = await queue.submit_many([JobSpec("echo", {"n": n}) for n in range(150)])
        for job in jobs:
            assert (await queue.wait(job.id, timeout=20)).status is JobState.COMPLETED
        followed = await queue.submit(JobSpec("echo", {"n": 1}))
        assert [event.name async for event in queue.events(followed.id)][-1] == "completed"


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_the_queue_goes_on_after_a_failover(kind: str, tmp_path: Path):
    async with hub(kind, tmp_path) as group:
        settings = settings_for(group.url, tmp_path, wait_replicas=1)
        async with JobQueue.connect(settings=settings) as queue, WorkerStarter.open(settings) as start:
            worker = await start()
            first = await queue.submit(JobSpec("echo", {"n": 1}))
            await queue.wait(first.id, timeout=10)
            old = await group.master()
            old.kill()
            await group.master(but=old)
            await group.keep_the_master()
            await group.replicas_attached(1)  # sentinels take a while to tell the other replica
            jobs = await queue.submit_many([JobSpec("echo", {"n": n}) for n in range(250)])
            for job in jobs:
                assert (await queue.wait(job.id, timeout=20)).status is JobState.COMPLETED
            assert (await queue.get(first.id)).status is JobState.COMPLETED
            followed = await queue.submit(JobSpec("echo"))
            assert [event.name async for event in queue.events(followed.id)][-1] == "completed"
            assert not worker.ended.is_set()
            await old.start()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_a_master_that_is_demoted_alive_is_left(kind: str, tmp_path: Path):
    async with hub(kind, tmp_path) as group:
        settings = settings_for(group.url, tmp_path)
        async with JobQueue.connect(settings=settings) as queue, WorkerStarter.open(settings) as start:
            await start()
            await queue.wait((await queue.submit(JobSpec("echo"))).id, timeout=10)
            old = await group.master()
            if kind == "sentinel":
                async with group.watchers[0].client() as watcher:
                    await watcher.execute_command("SENTINEL", "FAILOVER", "hub")
            else:
                async with group.data[1].client() as replica:
                    await replica.execute_command("CLUSTER", "FAILOVER")
            await group.master(but=old)
            job = await queue.submit(JobSpec("echo"))
            assert (await queue.wait(job.id, timeout=20)).status is JobState.COMPLETED


async def test_one_lost_sentinel_does_no_harm(tmp_path: Path):
    async with sentinels(tmp_path, replicas=1) as group:
        group.watchers[0].pause()
        group.watchers[1].kill()
        client = connect(group.url, settings_for(group.url, tmp_path))
        with anyio.fail_after(5):
            assert await client.ping()
        await client.aclose()


async def test_a_service_that_no_sentinel_knows_is_told(tmp_path: Path):
    async with sentinels(tmp_path, replicas=1) as group:
        client = connect(group.url.replace("/hub/", "/other/"))
        with pytest.raises(exceptions.ConnectionError, match="no sentinel knows 'other'"):
            await client.ping()
        await client.aclose()


async def test_a_cluster_is_not_taken_for_a_server(tmp_path: Path):
    async with cluster(tmp_path, replicas=0) as group:
        other = group.url.replace("redis+cluster", "redis").split(",")[1]
        client = connect(f"redis://{other}", settings_for("", tmp_path))
        with pytest.raises(ConfigError, match="part of a cluster"):
            await client.get("{emp}:x")
        async with client.pipeline(transaction=False) as pipe:
            pipe.get("{emp}:x")
            with pytest.raises(ConfigError, match="part of a cluster"):
                await pipe.execute()
        await client.aclose()


async def test_a_replica_is_not_ready(tmp_path: Path):
    async with (
        server(tmp_path / "a") as master,
        server(tmp_path / "b", "--replicaof", HOST, str(master.port)) as replica,
    ):
        client = connect(replica.url)
        with pytest.raises(NotReady):
            await client.set("x", 1)
        with pytest.raises(NotReady):
            await client.execute_command("WAIT", 1, 10)  # after a script that had nothing to write
        async with client.pipeline(transaction=False) as pipe:
            pipe.set("x", 1)
            with pytest.raises(NotReady):
                await pipe.execute()
        await client.aclose()


async def test_a_blocked_read_on_a_master_that_is_demoted_is_not_ready(tmp_path: Path):
    async with server(tmp_path / "a") as one, server(tmp_path / "b") as other:
        client = connect(one.url, blocking=True)
        async with anyio.create_task_group() as group, one.client() as admin:

            async def read() -> None:
                with pytest.raises(NotReady):
                    await client.blpop("inbox", 4)

            group.start_soon(read)
            while not (await admin.info("clients"))["blocked_clients"]:  # noqa: ASYNC110 - Redis tells nobody
                await anyio.sleep(0.01)
            await admin.replicaof(HOST, other.port)
        await client.aclose()


class Pointer:
    """Knows one server until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.told: list[tuple[str, int] | None] = []

    async def find(self) -> tuple[str, int]:
        return HOST, self._port

    def moved(self, node: tuple[str, int] | None) -> None:
        self.told.append(node)


async def test_where_nobody_answers_the_greeting_is_asked_about_again():
    """A server that hangs still takes connections."""
    async with await anyio.create_tcp_listener(local_host=HOST) as hung:
        pointer = Pointer(hung.extra(SocketAttribute.local_port))  # noqa: S610 - not Django's
        connection = FollowingConnection(locator=pointer, socket_timeout=0.05, retry=Retry(NoBackoff(), 0), protocol=2)
        with pytest.raises(exceptions.TimeoutError):
            await connection.connect()
        assert pointer.told == [None]


async def test_what_replicas_do_not_have_is_not_acknowledged(tmp_path: Path):
    async with (
        server(tmp_path / "a", "--repl-diskless-sync-delay", "0") as master,
        server(tmp_path / "b", "--replicaof", HOST, str(master.port)) as replica,
    ):
        settings = settings_for(master.url, tmp_path, wait_replicas=1, lease_s=3.0)
        async with master.client(socket_timeout=20) as admin:
            await admin.set("written", 1)
            assert await admin.wait(1, 15_000) == 1
        async with JobQueue.connect(settings=settings) as queue, anyio.create_task_group() as tasks:
            await queue.submit(JobSpec("echo"))
            replica.pause()
            submitted = anyio.Event()

            async def submit() -> None:
                await queue.submit(JobSpec("echo", id="late"))
                submitted.set()

            tasks.start_soon(submit)
            with anyio.fail_after(5):
                while not await queue.client.exists(queue.keys.job("late")):  # noqa: ASYNC110 - nothing tells
                    await anyio.sleep(0.01)
            # Long enough for the first try to be told so, and for the next one, which writes nothing.
            with anyio.move_on_after(1.5):
                await submitted.wait()
            assert not submitted.is_set()
            replica.go_on()
            with anyio.fail_after(10):
                await submitted.wait()


async def test_scripts_that_a_server_forgot_are_loaded_again(tmp_path: Path):
    async with server(tmp_path) as one:
        settings = settings_for(one.url, tmp_path)
        async with JobQueue.connect(settings=settings) as queue:
            await queue.submit_many([JobSpec("echo") for _ in range(250)])
            for count in (1, 250):
                await queue.client.script_flush()
                await queue.submit_many([JobSpec("echo") for _ in range(count)])
            assert (await queue.counts())[JobState.PENDING] == 501


async def test_a_user_of_the_queue_needs_no_more_than_its_own_keys(tmp_path: Path):
    rule = "on >pass:word resetkeys ~{emp}:* resetchannels &{emp}:* +@all -@admin -@dangerous +info"
    async with server(tmp_path, "--user", "worker", *rule.split()) as one:
        await goes_the_whole_way(settings_for(f"redis://worker:pass%3Aword@{HOST}:{one.port}", tmp_path))


async def test_a_wrong_password_is_told_at_once(tmp_path: Path):
    async with server(tmp_path, "--requirepass", "right") as one:
        url = f"redis://:wrong@{HOST}:{one.port}"
        client = connect(url)
        with pytest.raises(ConfigError, match="refuses the login"):
            await wait_for_redis(client, url, limit_s=5)
        await client.aclose()


async def test_a_unix_socket(tmp_path: Path):
    async with server(tmp_path, "--unixsocket", str(tmp_path / "r.sock")):
        await goes_the_whole_way(settings_for(f"unix://{tmp_path}/r.sock", tmp_path))


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with an authority's certificate and a server's key and certificate for 127.0.0.1."""
    folder = tmp_path / "tls"
    folder.mkdir()
    # Python 3.13 takes no certificate without an identifier of its issuer's key, and no issuer that does not say that it is one.
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\nauthorityKeyIdentifier=keyid\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=test-authority -addext keyUsage=keyCertSign -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr",
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@asynccontextmanager
async def encrypted(folder: Path, authority: Path) -> AsyncIterator[Server]:
    files = ("--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.pem")
    options = [str(authority / word) if "." in word else word for word in files]
    one = Server(folder, free_port(), (*options, "--tls-auth-clients", "optional"), tls=True)
    try:
        await one.start()
        if not one.alive:
            pytest.skip("this Redis was built without TLS")
        yield one
    finally:
        one.end()


async def test_an_encrypted_connection(tmp_path: Path, authority: Path):
    async with encrypted(tmp_path / "r", authority) as one:
        trusted = f"rediss://{HOST}:{one.port}?ssl_ca_certs={authority / 'ca.pem'}"
        await goes_the_whole_way(settings_for(trusted, tmp_path))
        url = f"rediss://{HOST}:{one.port}"
        client = connect(url)
        with pytest.raises(ConfigError, match="not trusted"):
            await wait_for_redis(client, url, limit_s=5)
        await client.aclose()


async def test_a_cancelled_command_takes_its_connection_with_it(tmp_path: Path):
    """Otherwise the reply of one command would be taken for that of the next."""
    async with server(tmp_path) as one:
        client = connect(one.url)
        await client.set("x", "right")
        for _ in range(5):
            with anyio.move_on_after(0.05):
                await client.blpop("nothing", 1)
            assert await client.get("x") == "right"
            with anyio.move_on_after(0.05):
                async with client.pipeline(transaction=False) as pipe:
                    pipe.blpop("nothing", 1)
                    await pipe.execute()
            assert await client.get("x") == "right"
        assert len(await client.client_list()) == 1
        await client.aclose()


async def test_what_the_queue_does_not_use_of_the_client_works_as_ever(tmp_path: Path):
    async with server(tmp_path) as one:
        client = connect(one.url)
        await client.set("x", "äöü")
        kept = await client.dump("x")
        assert isinstance(kept, bytes)
        await client.restore("y", 0, kept)
        async with client.pipeline(transaction=True) as pipe:
            pipe.get("y")
            pipe.hset("h", mapping={"a": 1, "b": 2.5})
            pipe.hgetall("h")
            assert await pipe.execute() == ["äöü", 2, {"a": "1", "b": "2.5"}]
        async with client.pipeline(transaction=False) as pipe:
            pipe.get("x")
            pipe.lpush("x", "no list")
            pipe.zrange("nothing", 0, -1, withscores=True)
            with pytest.raises(exceptions.ResponseError, match=r"Command # 2 \(LPUSH x no list\)"):
                await pipe.execute()
            assert await pipe.execute() == []
        assert (await client.config_get("maxmemory-policy")) == {"maxmemory-policy": "noeviction"}
        await client.aclose()
